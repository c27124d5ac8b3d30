"""Numbers from measurements: percentiles, medians and their spread, goodput, and when requests are due. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Generator(Protocol):
    """What is drawn from."""

    def expovariate(self, lambd: float) -> float:
        """Of the exponential distribution with the mean 1 / lambd."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, and the smallest and the largest of them."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of all are not above (nearest rank); NaN of nothing."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def goodput(latencies: Iterable[float], *, objective: float, seconds: float) -> float:
    """Requests a second that were answered within `objective` seconds of when they were due."""
    return sum(latency <= objective for latency in latencies) / seconds


def evenly(rate: float, seconds: float) -> list[float]:
    """When requests are due at a constant rate, in seconds from the start."""
    return [number / rate for number in range(int(rate * seconds))]


def poisson(rate: float, seconds: float, *, random: Generator) -> list[float]:
    """When requests of many independent clients are due: exponential gaps with the mean 1 / rate."""
    due, at = [], random.expovariate(rate)
    while at < seconds:
        due.append(at)
        at += random.expovariate(rate)
    return due
