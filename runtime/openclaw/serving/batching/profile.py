"""How long a model takes for a batch of b rows, L(b), and what follows from it. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

PAYS_BELOW = 0.9
"""A batch pays when a row of it costs less than this share of a row alone."""

_LEAST_GAIN = 0.1
_WORST_RATIO = 4.0
_HOPE = 0.8
"""Of what a row costs in the nearest batch size that ran, one that never did is taken to cost this: it gets tried."""


class Point(NamedTuple):
    """The latency of one batch size, and after how many runs it is known; 0: a guess, replaced by the first run."""

    rows: int
    seconds: float
    runs: int


@dataclass(frozen=True, slots=True)
class Profile:
    """L(b) of one shape of input, as a table that never falls.

    Attributes:
        points: by rising rows, the first for 1 row, the last for the largest batch.
        best: b* = argmin L(b)/b, the smallest such.
        row_seconds: what a row costs at best: L(b*)/b*.
        largest: rows of the largest batch that the table covers.
    """

    points: tuple[Point, ...]
    best: int = field(init=False)
    row_seconds: float = field(init=False)
    largest: int = field(init=False)
    _seconds: list[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rows = [point.rows for point in self.points]
        if not rows or rows[0] != 1 or any(a >= b for a, b in pairwise(rows)):
            raise ValueError(f"a profile needs batch sizes that rise from 1, not {rows}")
        seconds = _interpolated(rows, monotone([p.seconds for p in self.points], [max(p.runs, 1) for p in self.points]))
        object.__setattr__(self, "_seconds", seconds)
        object.__setattr__(self, "largest", rows[-1])
        cost, best = min((seconds[b] / b, b) for b in range(1, len(seconds)))
        object.__setattr__(self, "best", best)
        object.__setattr__(self, "row_seconds", cost)

    @property
    def known(self) -> bool:
        """Whether a single row ever ran; all latencies are guesses otherwise."""
        return self.points[0].runs > 0

    @property
    def pays(self) -> bool:
        """Whether the best batch is worth it: L(b*)/b* < 0.9 L(1)."""
        return self.row_seconds < PAYS_BELOW * self._seconds[1]

    @property
    def reason(self) -> str:
        """Why batches pay or do not, in words and figures."""
        alone, best = self._seconds[1], self.row_seconds
        figures = f"a row takes {alone * 1e3:.3g} ms alone and {best * 1e3:.3g} ms in a batch of {self.best}"
        if self.best == 1:
            figures = f"a row takes {alone * 1e3:.3g} ms alone and no less in any batch up to {self.largest}"
        return f"batching pays: {figures}" if self.pays else f"batching does not pay: {figures}"

    def latency(self, rows: int) -> float:
        """L(rows) in seconds; interpolated, and above the largest batch as many of those as it takes."""
        if rows <= self.largest:
            return self._seconds[rows]
        return self._seconds[-1] * rows / self.largest

    def rows_within(self, seconds: float) -> int:
        """The largest batch that takes no longer."""
        return bisect_right(self._seconds, seconds) - 1

    def scaled(self, factor: float) -> Profile:
        """The profile of what takes ``factor`` times as long."""
        return Profile(tuple(Point(point.rows, point.seconds * factor, point.runs) for point in self.points))

    def observed(self, rows: int, seconds: float, *, weight: float = 1.0) -> Profile:
        """The profile after one more run: an exponentially weighted mean that is quick to correct a guess.

        Args:
            rows: of the run.
            seconds: that it took.
            weight: 0 to 1, how much the run tells about this profile.
        """
        if rows < 1 or rows > self.largest:
            return self
        expected = self._seconds[rows]
        ratio = seconds / expected if expected > 0 else _WORST_RATIO
        updated = list(self.points)
        for index, share in self._around(rows):
            point = updated[index]
            if share * weight > 0:
                updated[index] = _moved(point, ratio, seconds=seconds, share=share * weight)
        return Profile(tuple(_guess_rest(updated)))

    def _around(self, rows: int) -> list[tuple[int, float]]:
        """The points that give L(rows), with the share of each."""
        sizes = [point.rows for point in self.points]
        right = bisect_left(sizes, rows)
        if sizes[right] == rows:
            return [(right, 1.0)]
        share = (rows - sizes[right - 1]) / (sizes[right] - sizes[right - 1])
        return [(right - 1, 1 - share), (right, share)]


def batch_sizes(largest: int) -> list[int]:
    """The batch sizes that are measured: powers of two, and the largest."""
    sizes = [1]
    while sizes[-1] * 2 < largest:
        sizes.append(sizes[-1] * 2)
    return sizes if largest == 1 else [*sizes, largest]


def guessed(largest: int, seconds: float = 0.0) -> Profile:
    """A profile of what never ran: ``seconds`` for a row, and hopeful about batches, so that they are tried."""
    return extended([Point(1, seconds, 0)], largest)


def extended(points: Sequence[Point], largest: int) -> Profile:
    """A profile up to ``largest`` rows of which only the first batch sizes were measured."""
    missing = [Point(rows, 0.0, 0) for rows in batch_sizes(largest) if rows > points[-1].rows]
    return Profile(tuple(_guess_rest([*points, *missing])))


def mixed(left: Profile, right: Profile, *, share: float) -> Profile:
    """The profile between two of the same batch sizes; ``share`` of the right one."""
    return Profile(
        tuple(
            Point(a.rows, a.seconds * (1 - share) + b.seconds * share, min(a.runs, b.runs))
            for a, b in zip(left.points, right.points, strict=True)
        )
    )


def monotone(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The nearest sequence that never falls, in the weighted least squares sense: pool adjacent violators.

    Source: Barlow et al., Statistical Inference under Order Restrictions, 1972.
    """
    pools: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        mean, total, length = value, float(weight), 1
        while pools and pools[-1][0] > mean:
            before, heavy, count = pools.pop()
            mean = (before * heavy + mean * total) / (heavy + total)
            total, length = heavy + total, length + count
        pools.append((mean, total, length))
    return [mean for mean, _, length in pools for _ in range(length)]


def _moved(point: Point, ratio: float, *, seconds: float, share: float) -> Point:
    if point.runs == 0 and share >= 0.5:
        replacement = seconds if share == 1.0 else point.seconds * ratio if point.seconds else seconds
        return Point(point.rows, replacement, 1)
    # One run that met a pause of the machine must not make everything look too slow to be tried again.
    bounded = min(max(ratio, 1 / _WORST_RATIO), _WORST_RATIO)
    gain = max(_LEAST_GAIN, 1 / (point.runs + 1)) * share
    return Point(point.rows, point.seconds * (1 + gain * (bounded - 1)), point.runs + 1)


def _guess_rest(points: Sequence[Point]) -> list[Point]:
    """The points, those that never ran derived anew from the nearest smaller batch that did, else the nearest larger.

    Where nothing ran, the first point stands for what did.
    """
    known = [point for point in points if point.runs] or [points[0]]
    guesses = []
    for point in points:
        if point.runs == 0 and point is not known[0]:
            near = next((other for other in reversed(known) if other.rows < point.rows), known[0])
            ratio = point.rows / near.rows
            factor = max(1.0, _HOPE * ratio) if ratio > 1 else ratio / _HOPE
            point = Point(point.rows, near.seconds * min(factor, max(1.0, ratio)), 0)
        guesses.append(point)
    return guesses


def _interpolated(rows: Sequence[int], seconds: Sequence[float]) -> list[float]:
    """Seconds by rows from 0 on, linear between the points."""
    dense = [0.0, seconds[0]]
    for index in range(1, len(rows)):
        low, high = rows[index - 1], rows[index]
        rise = (seconds[index] - seconds[index - 1]) / (high - low)
        dense.extend(seconds[index - 1] + rise * step for step in range(1, high - low + 1))
    return dense
