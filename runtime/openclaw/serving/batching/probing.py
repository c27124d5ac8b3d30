"""Runs a model on made-up inputs, to learn before the first user how it behaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from openclaw.execute.session import Array
from openclaw.graph.signature import Signature, TensorSpec

Run = Callable[[Sequence[str], Mapping[str, Array]], list[Array]]
"""``Model.infer``: the outputs of those names, in order."""


@dataclass(slots=True)
class Probe:
    """Makes inputs for a signature and runs them; deterministic.

    Attributes:
        size: what free dimensions but the first, and but a sequence's length, are taken to be.
        mask: an input of ones.
    """

    run: Run
    signature: Signature
    size: int
    mask: str | None = None
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0), init=False)

    def inputs(self, rows: int, *, length: int | None = None) -> dict[str, Array]:
        """Random inputs of that many rows; ``length`` in place of ``size``."""
        size = self.size if length is None else length
        return {spec.name: self._values(spec, rows, size) for spec in self.signature.inputs}

    def outputs(self, arrays: Mapping[str, Array]) -> list[Array]:
        """All outputs.

        Raises:
            RequestError: the model does not take these inputs.
        """
        return self.run([spec.name for spec in self.signature.outputs], arrays)

    def _values(self, spec: TensorSpec, rows: int, size: int) -> Array:
        shape = (rows, *(size if known == -1 else known for known in spec.shape[1:]))
        if spec.name == self.mask:
            return np.ones(shape, dtype=spec.dtype)
        if spec.datatype == "BYTES":
            return np.array([str(value) for value in self._random.integers(0, 10, shape).flat], dtype=object).reshape(
                shape
            )
        if is_float(spec.dtype):
            return self._random.standard_normal(shape).astype(spec.dtype)
        # Wide integers are most often indices, and only the first few are sure to be in range; bytes are most often
        # pixels.
        most = 128 if spec.dtype.itemsize == 1 and spec.dtype.kind != "b" else 2
        return self._random.integers(0, most, shape).astype(spec.dtype)


def is_float(dtype: np.dtype[np.generic]) -> bool:
    """Whether it holds real numbers; numpy itself does not know bfloat16 as such."""
    return dtype.kind == "f" or dtype.name == "bfloat16"
