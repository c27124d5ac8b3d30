"""Quantiles over a sliding window, in a fixed number of counters and with a bounded relative error.

Buckets grow by a constant factor g = (1 + a) / (1 - a): a value x falls into bucket ceil(log_g x), and
2 g^i / (g + 1) is within the relative error a of every value in bucket i. Source: Masson, Rim, Lee, "DDSketch:
A Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees", PVLDB 12(12), 2019, section 2.1.
Values below LOWEST or above HIGHEST count as those. Counts of several processes are merged by adding them.

The window is a ring of time slices. Each holds the number of the period that it counts; the first value of a
new period empties the oldest slice. Recording is O(1) for each value. What a scrape sees covers between
window - window / SLICES and window seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

RELATIVE_ERROR = 0.01
LOWEST = 1e-6
"""Seconds."""
HIGHEST = 1000.0
SLICES = 6

_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG = 1 / math.log(_GROWTH)
_FIRST = math.ceil(math.log(LOWEST) * _PER_LOG)
BUCKETS = math.ceil(math.log(HIGHEST) * _PER_LOG) - _FIRST + 1
# int() cuts towards zero, so 1 - 1e-9 makes it a ceiling for what is not negative. What that shifts lies within
# 1e-9 of a bucket's edge.
_SHIFT = 1 - 1e-9 - _FIRST
STRIDE = 1 + BUCKETS
"""Numbers of a slice: its period + 1, then its counts."""
CELLS = SLICES * STRIDE
"""Numbers that a window needs."""

_EMPTY = [0.0] * BUCKETS
_MIDDLES: NDArray[np.float64] = 2 / (_GROWTH + 1) * _GROWTH ** (_FIRST + np.arange(BUCKETS, dtype=np.float64))


class Window:
    """The writing end: one thread's values of the last ``seconds``, kept in ``cells[start : start + CELLS]``.

    Attributes:
        changed: first indices of the slices (STRIDE numbers each) that ended since ``touched`` was called.
    """

    __slots__ = ("_base", "_cells", "_per_second", "_period", "_start", "changed")

    def __init__(self, cells: list[float], start: int, *, seconds: float) -> None:
        self._cells = cells
        self._start = start
        self._per_second = SLICES / seconds
        self._period = -1
        self._base = start
        self.changed: set[int] = set()

    def record(self, values: NDArray[np.float64], now: float) -> None:
        """Counts values in seconds as of ``now``, seconds of a monotonic clock that all processes share."""
        period = int(now * self._per_second)
        if period != self._period:
            self._turn(period)
        buckets = (np.log(np.clip(values, LOWEST, HIGHEST)) * _PER_LOG + _SHIFT).astype(np.int64)
        for bucket, count in zip(*np.unique(buckets, return_counts=True), strict=True):
            self._cells[self._base + int(bucket)] += float(count)

    def _turn(self, period: int) -> None:
        at = self._start + period % SLICES * STRIDE
        # A process that took over a slot goes on with the slice of this period.
        if self._cells[at] != period + 1:
            self._cells[at] = period + 1.0
            self._cells[at + 1 : at + STRIDE] = _EMPTY
        if self._period >= 0:
            # Its last values may be newer than the last copy.
            self.changed.add(self._base - 1)
        self._period, self._base = period, at + 1

    def touched(self) -> set[int]:
        """Takes ``changed``, with the slice of this period."""
        changed, self.changed = self.changed, set()
        return changed if self._period < 0 else {*changed, self._base - 1}


def merged(windows: Iterable[NDArray[np.float64]], *, now: float, seconds: float) -> NDArray[np.float64]:
    """Counts by bucket over the last ``seconds``, added over ``windows`` (each CELLS numbers)."""
    newest = int(now * SLICES / seconds) + 1
    counts = np.zeros(BUCKETS)
    for window in windows:
        for part in window.reshape(SLICES, STRIDE):
            if newest - SLICES < part[0] <= newest:
                counts += part[1:]
    return counts


def quantiles(counts: NDArray[np.float64], wanted: Sequence[float]) -> list[float]:
    """The values at the ranks ``wanted`` (0 to 1); NaN each where nothing was counted.

    The rank is the lower one, as numpy's ``method="lower"``: floor(q (n - 1)).
    """
    ranks = counts.cumsum()
    total = ranks[-1]
    if not total:
        return [math.nan] * len(wanted)
    places = np.searchsorted(ranks, [math.floor(q * (total - 1)) for q in wanted], side="right")
    return [float(value) for value in _MIDDLES[places]]
