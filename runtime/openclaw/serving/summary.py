"""Quantiles of the recent past, in constant time and space.

Values are counted in buckets whose bounds grow by a constant factor, so that every quantile is right within a
relative error, as in DDSketch (https://arxiv.org/abs/1908.10693, section 2). The window is a ring of slices: the
oldest is emptied when a new one begins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

ERROR = 0.01
"""Relative error of a quantile."""
_GROWTH = (1 + ERROR) / (1 - ERROR)
_SCALE = 1 / math.log(_GROWTH)
_LEAST, _MOST = 1e-6, 1e4  # seconds
_FIRST = math.ceil(math.log(_LEAST) * _SCALE)
_BUCKETS = math.ceil(math.log(_MOST) * _SCALE) - _FIRST + 1


class Summary:
    """Sum and count of all seconds observed, and quantiles of those of the last ``window`` seconds.

    Seconds below a microsecond count as one, and those above 10,000 as that many.
    """

    __slots__ = ("_age", "_begun", "_current", "_ring", "count", "sum")

    def __init__(self, *, window: float = 60.0, slices: int = 6) -> None:
        self.sum = 0.0
        self.count = 0
        self._age = window / slices
        self._ring = [[0] * _BUCKETS for _ in range(slices)]
        self._current = self._ring[-1]
        self._begun = 0.0

    def observe(self, seconds: float, *, now: float) -> None:
        """Counts a value; ``now`` is a monotonic clock's time in seconds."""
        if now - self._begun >= self._age:
            self._turn(now)
        self.sum += seconds
        self.count += 1
        bounded = min(max(seconds, _LEAST), _MOST)
        self._current[math.ceil(math.log(bounded) * _SCALE) - _FIRST] += 1

    def quantiles(self, shares: Sequence[float], *, now: float) -> list[float]:
        """The values below which these shares (0 to 1, ascending) of the window lie; NaN where it is empty."""
        if now - self._begun >= self._age:
            self._turn(now)
        counts = [sum(column) for column in zip(*self._ring, strict=True)]
        total = sum(counts)
        found = []
        bucket, below = 0, counts[0]
        for share in shares:
            rank = share * (total - 1)
            while below <= rank and bucket < _BUCKETS - 1:
                bucket += 1
                below += counts[bucket]
            found.append(_middle(bucket) if total else math.nan)
        return found

    def _turn(self, now: float) -> None:
        """Begins as many slices as time has passed; each empties the one it takes the place of."""
        passed = min(int((now - self._begun) / self._age), len(self._ring))
        for _ in range(passed):
            self._ring.append([0] * _BUCKETS)
            del self._ring[0]
        self._current = self._ring[-1]
        self._begun = now - (now - self._begun) % self._age


def _middle(bucket: int) -> float:
    """The value that is off by the same factor from both bounds of a bucket."""
    return 2 * math.exp((bucket + _FIRST) / _SCALE) / (_GROWTH + 1)
