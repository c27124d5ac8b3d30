"""Times forms of a model against each other: short slices in turns, in random order, in one process."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles

from openclaw.optimizer.measuring.engine import Engine
from openclaw.optimizer.recipe import Feed

Clock = Callable[[], float]


@dataclass(frozen=True)
class Plan:
    """How long to time.

    Attributes:
        rounds: at most; in each every form has one slice.
        least: rounds that are run however long they take.
        slice_seconds: a slice is at least one pass over the feeds, and as many as fit in here.
        seconds: after which, ``least`` rounds done, no further round begins.
        cold_seconds: passes that take longer are not preceded by one that is not counted.
    """

    rounds: int
    least: int
    slice_seconds: float
    seconds: float
    cold_seconds: float = 0.25

    def at_least(self, rounds: int) -> Plan:
        """The same with so many rounds in any case."""
        return replace(self, rounds=max(self.rounds, rounds), least=max(self.least, rounds))


HEAT = Plan(rounds=7, least=3, slice_seconds=0.03, seconds=3.0)
FINAL = Plan(rounds=21, least=11, slice_seconds=0.06, seconds=20.0)
MORE = Plan(rounds=21, least=7, slice_seconds=0.06, seconds=10.0)
"""What follows the final, once or twice, where it left open whether a form is slower."""

STEADY, TRIES = 1.1, 2
"""How far apart two slices of one engine may lie where the machine is the same, and how often a round is run for it."""


@dataclass(frozen=True)
class Spread:
    """Seconds of a run: median, first and third quartile over the rounds."""

    median: float
    quartiles: tuple[float, float]

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Spread:
        """The spread of at least one round."""
        if len(rounds) < 2:
            return cls(rounds[0], (rounds[0], rounds[0]))
        first, middle, third = quantiles(rounds, n=4, method="inclusive")
        return cls(middle, (first, third))


def compare(
    engines: Mapping[str, Engine],
    feeds: Sequence[Feed],
    *,
    plan: Plan,
    seed: int,
    stop: Callable[[Mapping[str, Sequence[float]]], bool] = lambda _: False,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Times engines in turns.

    Args:
        engines: the forms, by name.
        feeds: one pass runs each once.
        plan: how long.
        seed: of the order in which the forms of a round run.
        stop: asked after every round with the rounds so far; ends the timing.
        clock: seconds that only rise.

    Returns:
        Mean seconds of a run over the feeds, for every form one figure a round: the median of its slice's passes.
    """
    order = random.Random(seed)
    rounds: dict[str, list[float]] = {name: [] for name in engines}
    for engine in engines.values():
        _once(engine, feeds, clock)
    start = clock()
    for number in range(plan.rounds):
        if number >= plan.least and clock() - start > plan.seconds:
            break
        names = list(engines)
        order.shuffle(names)
        for name in names:
            rounds[name].append(_slice(engines[name], feeds, plan=plan, clock=clock))
        if stop(rounds):
            break
    return rounds


def paired(
    mine: Engine,
    default: Engine,
    feed: Feed,
    *,
    plan: Plan,
    seed: int,
    clock: Clock = time.perf_counter,
) -> tuple[list[float], list[float]]:
    """Times two engines where the machine's speed changes from one second to the next.

    In each round one of them runs between two slices of the other; which of them is in the middle is drawn. Where those
    two differ by ``STEADY`` the machine changed meanwhile, and the round is run again, ``TRIES`` times in all. So what
    is left of such changes falls on both alike.

    Args:
        mine: an engine.
        default: what it is compared with.
        feed: a pass runs it once.
        plan: how long.
        seed: of the order.
        clock: seconds that only rise.

    Returns:
        Seconds of a run, one figure of each for every round: of the outer two their geometric mean.
    """
    order = random.Random(seed)
    rounds: list[tuple[float, float]] = []
    start = clock()
    while len(rounds) < plan.rounds and (len(rounds) < plan.least or clock() - start <= plan.seconds):
        outer, inner = order.choice([(mine, default), (default, mine)])
        for _ in range(TRIES):
            first, middle, last = (_slice(engine, [feed], plan=plan, clock=clock) for engine in (outer, inner, outer))
            if max(first, last) <= STEADY * min(first, last):
                break
        around = math.sqrt(first * last)
        rounds.append((around, middle) if outer is mine else (middle, around))
    return [each for each, _ in rounds], [each for _, each in rounds]


def _slice(engine: Engine, feeds: Sequence[Feed], *, plan: Plan, clock: Clock) -> float:
    # The others' weights are in the caches now; a server's own would be.
    first = _once(engine, feeds, clock)
    passes = [first] if first > plan.cold_seconds else []
    start = clock()
    while not passes or (clock() - start < plan.slice_seconds and first <= plan.cold_seconds):
        passes.append(_once(engine, feeds, clock))
    return median(passes) / len(feeds)


def _once(engine: Engine, feeds: Sequence[Feed], clock: Clock) -> float:
    start = clock()
    for feed in feeds:
        engine.run_unchecked(feed)
    return clock() - start
