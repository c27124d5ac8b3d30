"""Ratios of what was measured by turns, and how sure they are. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of ratios round by round, and an interval for it."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Of one form's latency to another's, in the same rounds; of at least one."""
    ratios = sorted(a / b for a, b in zip(above, below, strict=True))
    low, high = interval(len(ratios))
    return Ratio(statistics.median(ratios), ratios[low], ratios[high])


def interval(count: int) -> tuple[int, int]:
    """Indices in `count` ordered values between which the median of what they come from lies in 95 of 100 times.

    By the sign test, whatever the distribution: the number of values below the median is binomial with 1/2. Of few
    values the interval is all of them, and is right less often: of five in 94 of 100 times.
    """
    cut = 0
    while cut < (count - 1) // 2 and _outside(count, cut + 1) <= 1 - CONFIDENCE:
        cut += 1
    return cut, count - 1 - cut


def _outside(count: int, cut: int) -> float:
    """How often the median lies outside when `cut` values are cut off at each end."""
    return float(2 * sum(math.comb(count, each) for each in range(cut + 1)) / 2**count)
