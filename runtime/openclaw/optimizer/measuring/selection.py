"""Whether one form of a model is faster than another beyond the noise, and which of several to keep. Pure.

Two forms are timed in rounds, next to each other; what slows the machine for a while slows both, so the ratio of a
round is far steadier than its times. The test is the sign test turned into bounds for the median of these ratios (W. J.
Conover, Practical Nonparametric Statistics, 3rd ed. 1999, 3.1-3.2; Hahn and Meeker, Statistical Intervals, 1991, 5.2):
of n independent ratios r(1) <= ... <= r(n), the median lies above r(n-k) with probability at most

    P(Binomial(n, 1/2) <= k),

whatever the distribution of the ratios. With the largest k for which this is at most alpha, r(n-k) is a one-sided upper
bound at confidence 1 - alpha, and r(k+1) a lower one. Nothing is assumed of the noise but that rounds do not depend on
each other, which is why the order within a round is random.

A form is faster if the upper bound is below 1, and slower if the lower one is above 1. One that costs no accuracy stays
if it is not slower: the upper bound is at most 1.02, or the median at most 1.01, and it is not slower beyond the noise.
As long as no form is faster and bounds leave that open, more rounds are run, a few times at most. Alpha is shared among
the forms and the times that they are looked at (Bonferroni), so that the chance that any slower one passes as faster is
at most alpha.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

ALPHA = 0.01
NOT_SLOWER = 1.02
"""A form that costs no accuracy stays if its ratio is with confidence at most this."""
ON_PAR = 1.01
"""The median up to which one stays of which the rounds that there was time for say neither."""
LOOKS = 3
"""How often a comparison may be looked at before it is settled."""


@dataclass(frozen=True)
class Ratio:
    """Latency over the baseline's: the median of the rounds, and its one-sided bounds (inf, 0: too few rounds)."""

    median: float
    lower: float
    upper: float
    rounds: int

    @property
    def faster(self) -> bool:
        """Whether it is faster beyond the noise."""
        return self.upper < 1

    @property
    def not_slower(self) -> bool:
        """Whether a form that costs no accuracy may stand for the default: never if it is slower beyond the noise."""
        enough = math.isfinite(self.upper) and not self.slower
        return enough and (self.upper <= NOT_SLOWER or self.median <= ON_PAR)

    @property
    def slower(self) -> bool:
        """Whether it is slower beyond the noise."""
        return self.lower > 1

    @property
    def undecided(self) -> bool:
        """Whether more rounds may tell if it is slower."""
        return not self.slower and self.upper > NOT_SLOWER


def ratio(candidate: Sequence[float], baseline: Sequence[float], *, alpha: float = ALPHA) -> Ratio:
    """Compares the times of the same rounds.

    Args:
        candidate: seconds, one for every round.
        baseline: seconds of the same rounds.
        alpha: of either bound.

    Raises:
        ValueError: there are no rounds, not as many of both, or a time that is not positive.
    """
    ratios = sorted(by_round(candidate, baseline))
    lower, upper = bounds(ratios, alpha)
    return Ratio(median(ratios), lower, upper, len(ratios))


def by_round(candidate: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """The ratio of the times of each round; raises ValueError as :func:`ratio` does."""
    if len(candidate) != len(baseline) or not candidate:
        raise ValueError(f"{len(candidate)} rounds cannot be compared with {len(baseline)}; as many of both are needed")
    if min(*candidate, *baseline) <= 0:
        raise ValueError(f"a time of {min(*candidate, *baseline)} s was measured; only times above 0 can be compared")
    return [mine / other for mine, other in zip(candidate, baseline, strict=True)]


def bounds(ordered: Sequence[float], alpha: float) -> tuple[float, float]:
    """One-sided bounds for the median of what sorted values were drawn from; (0, inf) if they are too few."""
    k = spared(len(ordered), alpha)
    return (0.0, math.inf) if k < 0 else (ordered[k], ordered[len(ordered) - 1 - k])


def spared(rounds: int, alpha: float) -> int:
    """The largest k with P(Binomial(rounds, 1/2) <= k) <= alpha, or -1."""
    below, k = 0, -1
    while below + math.comb(rounds, k + 1) <= alpha * 2**rounds:
        k += 1
        below += math.comb(rounds, k)
    return k


def rounds_needed(alpha: float) -> int:
    """The fewest rounds that can show anything at ``alpha``."""
    return math.ceil(-math.log2(alpha))


def hopeless(candidate: Sequence[float], baseline: Sequence[float], *, worst: float = 1.05, after: int = 3) -> bool:
    """Whether more rounds are a waste: it was slower by ``worst`` in every round so far, and in ``after`` at least."""
    slower = [mine / other for mine, other in zip(candidate, baseline, strict=True)]
    return len(slower) >= after and min(slower) > worst


def unsettled(contenders: Sequence[Contender]) -> bool:
    """Whether more rounds are worth their time: none is faster, and of one that costs no accuracy it is open."""
    return not any(one.ratio.faster for one in contenders) and any(
        one.lossless and one.ratio.undecided for one in contenders
    )


@dataclass(frozen=True)
class Contender:
    """A form that may be kept: within the budget, and timed.

    Attributes:
        name: of the candidate.
        loss: of accuracy; 0 for what is lossless. Orders contenders by how exact they are.
        seconds: median latency.
        ratio: against the baseline.
        rounds: seconds of every round; the same rounds for all contenders that are not slower.
        lossless: whether it may stay without being faster, as long as it is not slower.
    """

    name: str
    loss: float
    seconds: float
    ratio: Ratio
    rounds: Sequence[float]
    lossless: bool = False


def choose(
    contenders: Sequence[Contender], *, baseline: float = math.inf, target: float | None = None, alpha: float = ALPHA
) -> Contender | None:
    """The contender to keep; None: stay with the exported model.

    Without a target: the fastest of those that are faster than the baseline beyond the noise, but a more exact one
    before it unless it is faster than that one beyond the noise too. If there is none, a lossless one that is not
    slower. With a target (seconds): the most exact one whose median meets it, so only lossless ones if the ``baseline``
    (seconds) meets it already; if none does, as without.
    """
    faster = [one for one in contenders if one.ratio.faster]
    if target is not None:
        meeting = [one for one in faster if one.seconds <= target]
        if baseline <= target or any(one.lossless for one in meeting):
            return choose([one for one in contenders if one.lossless], alpha=alpha)
        if meeting:
            return min(meeting, key=lambda one: (one.loss, one.seconds))
    if not faster:
        kept = [one for one in contenders if one.lossless and one.ratio.not_slower]
        return min(kept, key=lambda one: one.ratio.median, default=None)
    best = min(faster, key=lambda one: one.ratio.median)
    for other in sorted(faster, key=lambda one: (one.loss, one.ratio.median)):
        if other.loss < best.loss and not ratio(best.rounds, other.rounds, alpha=alpha).faster:
            return other
    return best
