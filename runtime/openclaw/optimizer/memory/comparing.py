"""Whether a way to hold activations is slower than it may be, told from rounds in which it took turns with the default.

What slows the machine for a while slows both of a round, and which of them is in the middle is drawn. So the logarithm
of their ratio is spread evenly about that of the true ratio, however noisy the machine: above it as often and as far as
below. Of such values the median of the means of all pairs (Hodges and Lehmann) is the estimate, and Wilcoxon's signed
ranks give bounds that hold exactly, whatever else the noise is like (M. Hollander, D. A. Wolfe, E. Chicken,
Nonparametric Statistical Methods, 3rd ed. 2014, 3.1 to 3.3). Where noise is normal they need two thirds of the rounds
that the median and its bounds by the sign test need.

Rounds are looked at a few times, with ``ALPHA`` shared among the looks:

- The upper bound is at most what is allowed: it is shown to be quick enough.
- The lower bound is above it: it is shown to be too slow, and is refused.
- Else it is open, and more rounds are run while there is time.

What is known of either kind before decides what else it takes to stay:

- An arena changes where tensors lie, and is as quick as the default unless shown to be slower. What is open when time
  is up stays by the estimate, and where it is no slower than the default beyond the noise: where that is so, it is
  refused with a probability of ``ALPHA`` at most, however noisy the machine.
- Fewer rows at a time change what kernels do, and may well be slower: weights are read as many times as there are
  parts, which costs the more, the busier the machine's memory is. So they stay only where they are shown to be quick
  enough, be it with ``ALPHA`` at the end. Of several the first one that does is kept, so what passes is more often too
  good than too bad; and sessions that are opened later differ by a percent or two. It takes twice the rounds of the
  first look while there is time for them, and an estimate within a third of what is allowed (of its logarithm).

Simulated with time for 56 rounds and heavy-tailed noise (Student's t with 3 degrees of freedom, half of the ratios off
by 7 % or more): of 100 that are as quick as the default some 97 arenas and 62 numbers of rows stay, of 100 that are
slower by 3 % some 52 and 10, of 100 that are slower by 5 % 14 and none. With half of the noise they are 100 and 92, 52
and 3, none and none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from openclaw.memory.choice import SLOWER
from openclaw.optimizer.measuring.selection import by_round

ALPHA = 0.05
"""The probability that a bound is wrong."""
LOOKS = (7, 14, 28, 56)
"""Rounds after which a comparison is looked at; the first are the fewest that can show anything at the looks' alpha."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Latency through the default's: the estimate, and its one-sided bounds (0, inf: too few rounds)."""

    ratio: float
    lower: float
    upper: float
    rounds: int
    allowed: float = SLOWER

    @property
    def quick(self) -> bool:
        """Whether it is shown to be quick enough."""
        return self.upper <= self.allowed

    @property
    def slow(self) -> bool:
        """Whether it is shown to be slower than it may be."""
        return self.lower > self.allowed

    @property
    def open(self) -> bool:
        """Whether more rounds may tell."""
        return not self.quick and not self.slow

    def __str__(self) -> str:
        bounds = f" ({self.lower:.3f} to {self.upper:.3f})" if math.isfinite(self.upper) else ""
        return f"{self.ratio:.3f}{bounds}"


def compared(
    mine: Sequence[float], default: Sequence[float], *, allowed: float = SLOWER, alpha: float = ALPHA / len(LOOKS)
) -> Compared:
    """What the times of the same rounds tell.

    Args:
        mine: seconds, one for every round.
        default: seconds of the same rounds.
        allowed: of the default's latency.
        alpha: of either bound.

    Raises:
        ValueError: there are no rounds, not as many of both, or a time that is not positive.
    """
    logs = np.log(by_round(mine, default))
    first, second = np.triu_indices(len(logs))
    means = np.sort((logs[first] + logs[second]) / 2)
    spared = _spared(len(logs), alpha)
    bounds = (-math.inf, math.inf) if spared < 0 else (means[spared], means[-1 - spared])
    return Compared(
        ratio=math.exp(float(np.median(means))),
        lower=math.exp(float(bounds[0])),
        upper=math.exp(float(bounds[1])),
        rounds=len(logs),
        allowed=allowed,
    )


def margin(allowed: float) -> float:
    """What fewer rows at a time may be estimated to take that stay: a third of what is allowed (of its logarithm)."""
    return min(allowed, math.cbrt(allowed))


def settled(found: Compared, *, divided: bool) -> bool:
    """Whether more rounds are of no use.

    Args:
        found: of all rounds so far.
        divided: whether it runs fewer rows at a time than the default.
    """
    return found.slow or (found.quick and (not divided or found.rounds >= LOOKS[1]))


def stays(mine: Sequence[float], default: Sequence[float], *, divided: bool, allowed: float = SLOWER) -> bool:
    """Whether a way stays of which these are all rounds that there is time for.

    Args:
        mine: seconds, one for every round.
        default: seconds of the same rounds.
        divided: whether it runs fewer rows at a time than the default.
        allowed: of the default's latency.
    """
    found = compared(mine, default, allowed=allowed)
    last = compared(mine, default, allowed=allowed, alpha=ALPHA)
    if divided:
        return last.quick and found.ratio <= margin(allowed)
    if not found.open:
        return found.quick
    return found.ratio <= allowed or 0 < last.lower <= 1


@lru_cache(maxsize=256)
def _spared(rounds: int, alpha: float) -> int:
    """The largest k with P(T <= k) <= alpha, or -1; T is the sum of signed ranks where both are equally quick."""
    chances = np.ones(1)
    for rank in range(1, rounds + 1):
        # Each rank counts or does not, with equal chances.
        without, within = np.pad(chances, (0, rank)), np.pad(chances, (rank, 0))
        chances = (without + within) / 2
    # Sums of halves are exact as far as it matters: alpha is nowhere near a multiple of the last.
    return int(np.searchsorted(np.cumsum(chances), alpha, side="right")) - 1
