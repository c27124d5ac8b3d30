"""How far a form's answers are from the exported model's. Pure.

Every metric takes the answers of both, a dictionary of arrays by output name for every run, in the same order, and
gives one number. A sample is a row of the first axis; of an output without axes, the whole. Where a model has several
outputs, the worst of them counts. Outputs that are no floating-point numbers count in ``top1`` alone.

- ``top1``: share of samples (of positions, in outputs of three and more axes) with the same highest class: the class
  axis is the second of four and more axes (N, C, H, W), else the last. Integers, booleans and strings agree if equal.
- ``cosine``, ``cosine-worst``: of the angle between both answers to a sample, mean and least over the samples.
- ``max-abs``: the largest difference of two numbers.
- ``relative``: the largest of |a - b| / (|a| + rms), with rms over the output: relative for what is large, and relative
  to the usual size for what is near zero.
- ``overlap``: mean over the classes of intersection over union (Jaccard index) of where both answers put them, for
  dense outputs; one class: above 0.5 if all numbers lie in [0, 1], else above 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Answers = Sequence[Mapping[str, Array]]
Metric = Callable[[Answers, Answers], float]


def top1(reference: Answers, candidate: Answers) -> float:
    """See the module."""
    return min(_share_equal(pairs) for pairs in _outputs(reference, candidate))


def cosine(reference: Answers, candidate: Answers) -> float:
    """See the module."""
    return _least(reference, candidate, lambda values: float(np.mean(values)))


def cosine_worst(reference: Answers, candidate: Answers) -> float:
    """See the module."""
    return _least(reference, candidate, lambda values: float(np.min(values)))


def max_abs(reference: Answers, candidate: Answers) -> float:
    """See the module."""
    return max((_largest(_difference(a, b)) for a, b in _floats(reference, candidate)), default=0.0)


def relative(reference: Answers, candidate: Answers) -> float:
    """See the module."""
    return max((_relative(a, b) for a, b in _floats(reference, candidate)), default=0.0)


def overlap(reference: Answers, candidate: Answers) -> float:
    """See the module."""
    return min((_jaccard(pairs) for pairs in _outputs(reference, candidate) if _is_float(pairs[0][0])), default=1.0)


HIGHER_IS_BETTER: Mapping[str, Metric] = {
    "top1": top1,
    "cosine": cosine,
    "cosine-worst": cosine_worst,
    "overlap": overlap,
}
LOWER_IS_BETTER: Mapping[str, Metric] = {"max-abs": max_abs, "relative": relative}
METRICS: Mapping[str, Metric] = {**HIGHER_IS_BETTER, **LOWER_IS_BETTER}


def _outputs(reference: Answers, candidate: Answers) -> Iterator[list[tuple[Array, Array]]]:
    for name in reference[0]:
        yield [(a[name], b[name]) for a, b in zip(reference, candidate, strict=True)]


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f"


def _floats(reference: Answers, candidate: Answers) -> Iterator[tuple[Floats, Floats]]:
    for pairs in _outputs(reference, candidate):
        for a, b in pairs:
            if _is_float(a) and a.size:
                yield a.astype(np.float64), b.astype(np.float64)


def _share_equal(pairs: Sequence[tuple[Array, Array]]) -> float:
    equal = total = 0
    for a, b in pairs:
        if _is_float(a) and a.ndim > 1:
            axis = 1 if a.ndim >= 4 else -1
            same = np.argmax(a, axis) == np.argmax(b, axis)
        elif _is_float(a):
            continue
        else:
            same = np.asarray(a == b)
        equal, total = equal + int(np.count_nonzero(same)), total + same.size
    return equal / total if total else 1.0


def _least(reference: Answers, candidate: Answers, reduce: Callable[[Floats], float]) -> float:
    worst = 1.0
    for pairs in _outputs(reference, candidate):
        values = [_cosines(a.astype(np.float64), b.astype(np.float64)) for a, b in pairs if _is_float(a) and a.size]
        if values:
            worst = min(worst, reduce(np.concatenate(values)))
    return worst


def _cosines(a: Floats, b: Floats) -> Floats:
    """Of every sample; equal samples have 1, whatever they hold, and those with NaN on one side -1."""
    if a.ndim == 0:
        a, b = a[None], b[None]
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    same = np.all((a == b) | (np.isnan(a) & np.isnan(b)), axis=1)
    # By their largest number first, or squares of large ones would overflow.
    a, b = _scaled(a), _scaled(b)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.sum(a * b, axis=1) / norms
    values = np.where(np.isfinite(values), np.clip(values, -1, 1), np.where(norms == 0, 0.0, -1.0))
    return np.where(same, 1.0, values)


def _scaled(rows: Floats) -> Floats:
    largest = np.max(np.abs(rows), axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return rows / np.where(largest > 0, largest, 1)


def _difference(a: Floats, b: Floats) -> Floats:
    """|a - b|; equal infinities and NaN in the same place differ by 0, NaN on one side alone by infinity."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(a - b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0.0, np.where(np.isnan(difference), math.inf, difference))


def _relative(a: Floats, b: Floats) -> float:
    finite = a[np.isfinite(a)]
    rms = _rms(finite)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = _difference(a, b) / (np.abs(a) + rms)
    # 0 / 0: both are zero. A finite number over infinity would be 0, and is as wrong as can be.
    values = np.where(_difference(a, b) == 0, 0.0, np.where(np.isfinite(a) & np.isfinite(values), values, math.inf))
    return _largest(values)


def _rms(values: Floats) -> float:
    largest = _largest(np.abs(values))
    return largest * float(np.sqrt(np.mean((values / largest) ** 2))) if largest > 0 else 0.0


def _largest(values: Floats) -> float:
    return float(np.max(values)) if values.size else 0.0


def _jaccard(pairs: Sequence[tuple[Array, Array]]) -> float:
    both: dict[int, int] = {}
    either: dict[int, int] = {}
    for a, b in pairs:
        first, second = _classes(a, a), _classes(b, a)
        for label in np.union1d(first, second).tolist():
            at, other = first == label, second == label
            both[label] = both.get(label, 0) + int(np.count_nonzero(at & other))
            either[label] = either.get(label, 0) + int(np.count_nonzero(at | other))
    return float(np.mean([both[label] / either[label] for label in either])) if either else 1.0


def _classes(array: Array, scale: Array) -> npt.NDArray[np.int64]:
    axis = 1 if array.ndim >= 4 else array.ndim - 1
    if array.ndim > 1 and array.shape[axis] > 1:
        return np.asarray(np.argmax(array, axis))
    numbers = scale.astype(np.float64)
    threshold = 0.5 if numbers.size and numbers.min() >= 0 and numbers.max() <= 1 else 0.0
    return (array.astype(np.float64) > threshold).astype(np.int64)
