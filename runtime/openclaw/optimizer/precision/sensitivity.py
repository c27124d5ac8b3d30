"""Which layers go back to float: the search for the fewest that bring a model back within its accuracy budget.

Every layer's harm is measured by lowering it alone. Harms of several layers neither add up nor rank exactly, so what
counts is the judgement of the whole: layers are taken back from the most harmful on, as many as are needed (found by
halving, for the harm that is left falls with every layer taken back), and then one by one those are lowered again
without which it would have held. Time is bounded: what is not measured in time ranks by its estimate, and the best
that was seen to hold stands.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from openclaw.errors import NotApplicable

WITHIN = 0.9
"""The share of the budget that may be used up on calibration data: held-out data is a little harder."""

MEASURING_SECONDS = 30.0
SEARCHING_SECONDS = 60.0
MEASURING_SHARE = 1 / 3
"""Of what is left of the time; the rest is for the search."""

Clock = Callable[[], float]
Judged = Callable[[frozenset[str]], float]
"""The share of the budget used up with these layers in float and all others lowered."""


@dataclass(frozen=True)
class Fallback:
    """What the search found.

    Attributes:
        floats: the layers in float, the most harmful first.
        used: the share of the budget that is used up then.
        judged: how many forms were judged.
    """

    floats: tuple[str, ...]
    used: float
    judged: int


def measure(
    estimates: Mapping[str, float], alone: Callable[[str], float], *, seconds: float, clock: Clock = time.monotonic
) -> dict[str, float]:
    """The harm of every layer; those with the highest estimate are measured first.

    Args:
        estimates: a guess at every layer's harm, in any unit.
        alone: the harm with this layer lowered alone.
        seconds: after which no measurement begins; the layers left take their estimate, put to the measured ones' scale
            and never above the least of them.
        clock: in seconds.
    """
    end = clock() + seconds
    harms: dict[str, float] = {}
    for name in sorted(estimates, key=lambda name: -estimates[name]):
        if clock() >= end and harms:
            break
        harms[name] = alone(name)
    left = {name: estimate for name, estimate in estimates.items() if name not in harms}
    if left:
        ceiling, highest = min(harms.values()), max(left.values())
        harms |= {name: ceiling * (value / highest if highest > 0 else 1.0) for name, value in left.items()}
    return harms


def fall_back(
    harms: Mapping[str, float],
    judge: Judged,
    *,
    within: float = WITHIN,
    seconds: float = SEARCHING_SECONDS,
    ends: float = math.inf,
    clock: Clock = time.monotonic,
) -> Fallback | None:
    """Takes the most harmful layers back to float until the budget holds.

    Args:
        harms: of every layer that can be lowered.
        judge: judges a whole form.
        within: what it may use up.
        seconds: after which no further form is judged, once one has held.
        ends: when no further form is judged in any case, by the clock.
        clock: in seconds.

    Returns:
        None if nothing held (in time) but leaving all in float, which is not judged.
    """
    order = sorted(harms, key=lambda name: (-harms[name], name))
    end = min(ends, clock() + seconds)
    search = _Search(judge, within)
    if search.holds(()):
        return search.best
    low, high = 0, len(order)
    while high - low > 1 and clock() < (ends if search.best is None else end):
        middle = _between(low, high, len(order))
        if search.holds(order[:middle]):
            high = middle
        else:
            low = middle
    if search.best is None:
        return None
    # The last one taken back made it hold; of those before it, any may have been taken back in vain.
    for name in reversed(search.best.floats[:-1]):
        if clock() >= end:
            break
        search.holds([other for other in search.best.floats if other != name])
    return search.best


def within_budget(
    estimates: Mapping[str, float], judge: Judged, *, ends: float = math.inf, clock: Clock = time.monotonic
) -> Fallback:
    """Judges the form with every layer lowered, and takes layers back to float if it breaks the budget.

    Args:
        estimates: a guess at every layer's harm, in any unit.
        judge: judges a whole form.
        ends: when it is to be through, by the clock.
        clock: in seconds.

    Raises:
        NotApplicable: nothing held, or nothing was found in time.
    """
    whole = judge(frozenset())
    if whole <= WITHIN:
        return Fallback((), whole, 1)
    every = frozenset(estimates)
    over = f"it uses up {whole:.3g} of the accuracy budget, {WITHIN:g} is allowed on calibration data, and "
    if clock() >= ends:
        raise NotApplicable(f"{over}there was no time left to look for layers to leave in float")
    seconds = min(MEASURING_SECONDS, (ends - clock()) * MEASURING_SHARE)
    harms = measure(estimates, lambda name: judge(every - {name}), seconds=seconds, clock=clock)
    found = fall_back(harms, judge, ends=ends, clock=clock)
    if found is None:
        within = "no choice of layers in float holds it"
        raise NotApplicable(over + (within if clock() < ends else f"{within} that was found in time"))
    return found


def _between(low: int, high: int, count: int) -> int:
    """Halves what is left, but tries few before many: a form with most layers in float is hardly worth having."""
    return min((low + high) // 2, max(low + 1, low * 2, count // 8))


class _Search:
    """Judges forms and remembers the one with the fewest layers in float that held."""

    def __init__(self, judge: Judged, within: float) -> None:
        self._judge = judge
        self._within = within
        self._judged = 0
        self.best: Fallback | None = None

    def holds(self, floats: Sequence[str]) -> bool:
        used = self._judge(frozenset(floats))
        self._judged += 1
        held = used <= self._within
        if held and (self.best is None or len(floats) < len(self.best.floats)):
            self.best = Fallback(tuple(floats), used, self._judged)
        elif self.best is not None:
            self.best = Fallback(self.best.floats, self.best.used, self._judged)
        return held
