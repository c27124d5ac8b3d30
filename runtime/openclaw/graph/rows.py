"""Whether a model's signature leaves the number of its rows free: the first dimension of all inputs and outputs. Pure.

That rows are independent of each other a signature cannot say; only answers show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from openclaw.graph.signature import Signature


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


def why_not_rows(signature: Signature) -> str | None:
    """Why a model cannot be given fewer or more rows; None: it can."""
    if not signature.inputs:
        return "the model has no input"
    for kind, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs:
            if not spec.shape or spec.shape[0] != -1:
                return f"the first dimension of {kind} {spec.name!r} is not free: {list(spec.shape)}"
    return None


def rows_of(arrays: Mapping[str, _Shaped]) -> int | None:
    """How many rows inputs have; None if they have no or different numbers of them."""
    rows = None
    for array in arrays.values():
        shape = array.shape
        if not shape or (rows is not None and shape[0] != rows):
            return None
        rows = shape[0]
    return rows
