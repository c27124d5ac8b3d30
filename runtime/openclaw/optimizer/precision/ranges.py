"""The range of every value between operators on the calibration data, by which 8 bits are laid over it.

The model runs once on the data for all ways to choose a range: what they need of a value are its bounds, which are
exact, and how its numbers are spread, for which some of them stand. The choice itself is onnxruntime's:

- ``minmax``: from the smallest to the largest number;
- ``percentile``: all but the rarest, 1 of 100,000;
- ``entropy``: what changes the distribution of the numbers least.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from openclaw.errors import NotApplicable
from openclaw.optimizer.precision.observing import values_of
from openclaw.optimizer.precision.quiet import quietly
from openclaw.optimizer.recipe import Feed

Floats = npt.NDArray[np.float32]

METHODS = ("minmax", "percentile", "entropy")
MAX_FEEDS = 64
NUMBERS = 1 << 18
"""Numbers that stand for a value, of all feeds together."""
_BINS = {"percentile": 2048, "entropy": 256}
_STEPS = 128
"""Of 8 bits on one side of 0; the entropy is looked at for ranges from as many bins on, up to all."""
_PERCENTILE = 99.999


@dataclass
class Spread:
    """What a value was: its bounds, and some of its numbers, among them the bounds of each run."""

    low: np.float32
    high: np.float32
    numbers: list[Floats]


def spreads(
    model: onnx.ModelProto, operators: Collection[str], feeds: Sequence[Feed], *, threads: int
) -> dict[str, Spread]:
    """Of every floating-point value that one of ``operators`` in the main graph reads or makes.

    Raises:
        NotApplicable: the model cannot be run on the feeds, or comes to numbers that are not finite.
    """
    names = calibrated(model, operators)
    feeds = feeds[:MAX_FEEDS]
    share = max(1, NUMBERS // max(1, len(feeds)))
    rng = np.random.default_rng(0)
    found: dict[str, Spread] = {}
    for values in values_of(model, names, feeds, threads=threads):
        for name in names:
            value = np.asarray(values[name], np.float32).reshape(-1)
            if value.size:
                _add(found, name, value, share=share, rng=rng)
    for name in names:
        found.setdefault(name, Spread(np.float32(0), np.float32(0), [np.zeros(1, np.float32)]))
    return found


def _add(found: dict[str, Spread], name: str, value: Floats, *, share: int, rng: np.random.Generator) -> None:
    low, high = np.float32(value.min()), np.float32(value.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise NotApplicable(f"value {name!r} is not finite on the calibration data")
    # At random places, for strides may fall in with a row's length.
    numbers = value.copy() if value.size <= share else value[rng.integers(0, value.size, share)]
    numbers = np.concatenate([numbers, np.array([low, high], np.float32)])
    if name in found:
        known = found[name]
        known.low, known.high = min(known.low, low), max(known.high, high)
        known.numbers.append(numbers)
    else:
        found[name] = Spread(low, high, [numbers])


def calibrated(model: onnx.ModelProto, operators: Collection[str]) -> list[str]:
    """The values that get a range, as onnxruntime's calibrators choose them."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type for value in (*graph.value_info, *graph.output, *graph.input)}
    constants = {tensor.name for tensor in graph.initializer}
    floats = {
        name
        for name, kind in types.items()
        if kind.HasField("tensor_type") and kind.tensor_type.elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
    }
    touched = [name for node in graph.node if node.op_type in operators for name in (*node.input, *node.output)]
    return [name for name in dict.fromkeys(touched) if name in floats and name not in constants]


def ranges(found: Mapping[str, Spread], method: str) -> Any:
    """What onnxruntime's quantizers take as ``tensors_range``."""
    with quietly():
        from onnxruntime.quantization.calibrate import CalibrationMethod, HistogramCollector, TensorsData

        if method == "minmax":
            bounds = {name: (np.asarray(one.low), np.asarray(one.high)) for name, one in found.items()}
            return TensorsData(CalibrationMethod.MinMax, bounds)
        bins = _BINS[method]
        collector = HistogramCollector(
            method=method,
            symmetric=False,
            num_bins=bins,
            num_quantized_bins=_STEPS,
            percentile=_PERCENTILE,
            scenario="same",
        )
        collector.collect({name: np.concatenate(one.numbers) for name, one in found.items()})
        kind = {"percentile": CalibrationMethod.Percentile, "entropy": CalibrationMethod.Entropy}[method]
        return TensorsData(kind, collector.compute_collection_result())
