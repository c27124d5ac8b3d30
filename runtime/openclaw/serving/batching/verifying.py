"""Whether a batch gives every request what it would have been given alone: found out by running the model.

A signature can only say that a first dimension is free. Whether rows are independent (a quantization that scales
by the whole batch, or a normalization over it, makes them not) and whether a mask really hides what is filled up
is seen in the answers alone.
"""

from __future__ import annotations

import numpy as np

from openclaw.errors import RequestError
from openclaw.execute.session import Array
from openclaw.serving.batching.assembly import gather, split
from openclaw.serving.batching.layout import SEQUENCE_AXIS, Layout, Sequences, sequence_inputs
from openclaw.serving.batching.probing import Probe, is_float

TOLERANCE = {2: 2e-2, 4: 1e-3, 8: 1e-6}
"""By bytes of a float: how far answers may lie apart, as a share of the largest. Kernels add in another order for
another batch size; that is well below."""

_ROWS = 3
_SHORT, _LONG = 5, 8


def rows_differ(probe: Probe, layout: Layout) -> str | None:
    """Why a row of a batch is not what it is alone, or why that cannot be told; None: it is."""
    alone = [probe.inputs(1) for _ in range(_ROWS)]
    try:
        expected = [probe.outputs(arrays) for arrays in alone]
    except RequestError as error:
        return f"the model takes some made-up inputs and not others: {error}"
    try:
        together = probe.outputs(gather(alone, layout))
        answers = split(together, [1] * _ROWS)
    except (RequestError, ValueError) as error:
        return f"the model does not take {_ROWS} rows at once: {error}"
    return _first_difference(probe, expected, answers)


def find_sequences(probe: Probe, layout: Layout, *, mask: str) -> Sequences | str:
    """How sequences of different lengths share a run, or why they cannot."""
    short, long = probe.inputs(1, length=_SHORT), probe.inputs(2, length=_LONG)
    try:
        expected = [probe.outputs(short), probe.outputs(long)]
    except RequestError as error:
        return f"the model does not take sequences of {_SHORT} and {_LONG}: {error}"
    cuts = _cuts(probe, expected)
    if isinstance(cuts, str):
        return cuts
    sequences = Sequences(mask, sequence_inputs(probe.signature), cuts)
    padded = Layout(layout.inputs, layout.fixed, sequences)
    try:
        together = probe.outputs(gather([short, long], padded, length=_LONG))
        axes = [cuts[spec.name] for spec in probe.signature.outputs]
        answers = split(together, [1, 2], lengths=[_SHORT, _LONG], cuts=axes)
    except (RequestError, ValueError) as error:
        return f"the model does not take sequences of {_SHORT} and {_LONG} at once: {error}"
    different = _first_difference(probe, expected, answers)
    return f"{mask!r} does not hide what is filled up: {different}" if different else sequences


def _cuts(probe: Probe, expected: list[list[Array]]) -> dict[str, tuple[int, ...]] | str:
    cuts = {}
    for spec, short, long in zip(probe.signature.outputs, *expected, strict=True):
        if short.ndim != long.ndim:
            return f"output {spec.name!r} has another rank for another length"
        axes = []
        for axis in range(SEQUENCE_AXIS, short.ndim):
            sizes = short.shape[axis], long.shape[axis]
            if sizes == (_SHORT, _LONG):
                axes.append(axis)
            elif sizes[0] != sizes[1]:
                return f"dimension {axis} of output {spec.name!r} is {sizes[0]} and {sizes[1]} for {_SHORT} and {_LONG}"
        cuts[spec.name] = tuple(axes)
    return cuts


def _first_difference(probe: Probe, expected: list[list[Array]], answers: list[list[Array]]) -> str | None:
    for alone, shared in zip(expected, answers, strict=True):
        for spec, wanted, given in zip(probe.signature.outputs, alone, shared, strict=True):
            if wanted.shape != given.shape:
                return f"output {spec.name!r} has shape {list(wanted.shape)} alone, {list(given.shape)} in a batch"
            if not agree(wanted, given):
                return f"output {spec.name!r} has other values in a batch than alone"
    return None


def agree(wanted: Array, given: Array) -> bool:
    """Whether two answers are the same but for the order of additions."""
    if not is_float(wanted.dtype):
        return bool(np.array_equal(wanted, given))
    left, right = wanted.astype(np.float64), given.astype(np.float64)
    finite = np.abs(left[np.isfinite(left)])
    scale = float(finite.max()) if finite.size else 0.0
    return bool(np.allclose(left, right, rtol=0.0, atol=TOLERANCE[wanted.dtype.itemsize] * scale, equal_nan=True))
