"""Times ways to hold activations by turns with onnxruntime's default, until it is settled which of them stay.

Sessions of one model in one memory differ by a percent or two, as it happens, so all are opened anew every few rounds.
Their threads do not spin between operators, as a server's do not: to wake them for every operator costs the more, the
fewer rows it has.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from openclaw.memory.choice import DEFAULT, Way
from openclaw.memory.properties import Memory
from openclaw.optimizer.measuring import selection, timing
from openclaw.optimizer.measuring.engine import Engine, open_session
from openclaw.optimizer.memory.comparing import LOOKS, Compared, compared, margin, settled, stays
from openclaw.optimizer.recipe import Feed

TIMING = timing.Plan(rounds=LOOKS[-1], least=1, slice_seconds=0.1, seconds=math.inf)
"""Of a way in one case."""
_FIRST, _SCREENING = 2, 1 / 8
"""Rounds of each of several ways, and the part of the time for them, before it is decided which is worth more."""
_SITTING = 4
"""Rounds after which sessions are opened anew."""
_HOPELESS, _HOPELESS_ROUNDS = 1.1, 4
"""What takes longer than so much of the default's latency in every one of so many rounds is not timed any further."""


@dataclass(frozen=True)
class Timed:
    """What was found of a way in each case, the largest first, and whether it is quick enough to stay."""

    way: Way
    found: Sequence[Compared]
    stays: bool

    @property
    def reason(self) -> str:
        """Why it stays, or does not."""
        worst = max(self.found, key=lambda one: one.ratio)
        told = f"{worst.allowed:.3g} is allowed" if math.isfinite(worst.allowed) else "the least was asked for"
        if self.stays and worst.ratio > worst.allowed:
            told = f"no slower beyond the noise of {worst.rounds} rounds"
        elif not self.stays and worst.quick:
            told = f"{margin(worst.allowed):.4g} is allowed of fewer rows at a time"
        elif not self.stays and worst.ratio <= worst.allowed:
            told = f"{worst.rounds} rounds do not show that it is within {worst.allowed:.3g}"
        return f"{worst} of the default's latency; {told}"


class Race:
    """Times ways in the same inputs.

    Args:
        path: of the model.
        cases: inputs, by rising size.
        threads: of one inference.
        allowed: of the default's latency; inf: anything, so that few rounds will do.
        seed: of the order of timing.
    """

    def __init__(self, path: Path, cases: Sequence[Feed], *, threads: int, allowed: float, seed: int) -> None:
        self._path, self._cases, self._threads = path, cases, threads
        self._allowed, self._seed = allowed, seed

    def run(self, ways: Sequence[Way], *, until: float) -> list[Timed]:
        """Times ways in the largest case, and those that stay in the next.

        Args:
            ways: one of them is wanted, the first that stays: what comes after it need not be settled.
            until: when no further round begins, by ``time.perf_counter``; each way has one in any case.
        """
        found: dict[str, list[Compared]] = {way.name: [] for way in ways}
        left = list(ways)
        for number, case in enumerate(reversed(self._cases)):
            now = time.perf_counter()
            share = max(0.0, until - now) / (len(self._cases) - number)
            entrants = self._run(left, case, ends=now + share)
            for each in entrants:
                found[each.way.name].append(each.found)
            left = [each.way for each in entrants if each.stays]
        return [Timed(way, found[way.name], way in left) for way in ways]

    def _run(self, ways: Sequence[Way], case: Feed, *, ends: float) -> list[_Entrant]:
        entrants = [_Entrant(way, self._allowed) for way in ways]
        if len(entrants) > 1:
            self._screen(entrants, case, ends=ends)
        elif entrants:
            self._sitting(entrants[0], case, ends=ends)
        while time.perf_counter() < ends and (next_ := _next(entrants)) is not None:
            self._sitting(next_, case, ends=ends)
        return entrants

    def _screen(self, entrants: Sequence[_Entrant], case: Feed, *, ends: float) -> None:
        """A few rounds of all, to see which of them are worth more; of those that take long at least one."""
        names = [DEFAULT, *(each.way.name for each in entrants)]
        made = opened(self._path, [Memory(), *(each.way.memory for each in entrants)], threads=self._threads)
        seconds = _SCREENING * max(0.0, ends - time.perf_counter())
        plan = replace(TIMING, rounds=_FIRST, seconds=seconds)
        seen = timing.compare(dict(zip(names, made, strict=True)), [case], plan=plan, seed=self._seed)
        for each in entrants:
            each.add(seen[each.way.name], seen[DEFAULT])

    def _sitting(self, entrant: _Entrant, case: Feed, *, ends: float) -> None:
        """A few rounds of a way and of the default, opened just now."""
        default, engine = opened(self._path, [Memory(), entrant.way.memory], threads=self._threads)
        for each in (default, engine):
            # The second run with a pattern is the first that uses it.
            each.run_unchecked(case)
        rounds, left = min(_SITTING, entrant.lacking), max(0.0, ends - time.perf_counter())
        plan = replace(TIMING, rounds=rounds, seconds=left)
        entrant.add(*timing.paired(engine, default, case, plan=plan, seed=self._seed + entrant.rounds))


@dataclass(eq=False)
class _Entrant:
    """A way in one case: seconds of its rounds, and of the default in the same."""

    way: Way
    allowed: float
    mine: list[float] = field(default_factory=list)
    default: list[float] = field(default_factory=list)

    def add(self, mine: Sequence[float], default: Sequence[float]) -> None:
        """Rounds."""
        self.mine += mine
        self.default += default

    @property
    def rounds(self) -> int:
        return len(self.mine)

    @property
    def lacking(self) -> int:
        """Rounds until it is looked at."""
        return min((look for look in self.looks if look > self.rounds), default=0) - self.rounds

    @property
    def looks(self) -> list[int]:
        return [min(look, TIMING.rounds) for look in (LOOKS if math.isfinite(self.allowed) else LOOKS[:1])]

    @property
    def divided(self) -> bool:
        return self.way.memory.rows is not None

    @property
    def found(self) -> Compared:
        return compared(self.mine, self.default, allowed=self.allowed)

    @property
    def stays(self) -> bool:
        return stays(self.mine, self.default, divided=self.divided, allowed=self.allowed)

    @property
    def settled(self) -> bool:
        """Whether more rounds are of no use, or there are none."""
        worst = max(_HOPELESS, self.allowed)
        return (
            selection.hopeless(self.mine, self.default, worst=worst, after=_HOPELESS_ROUNDS)
            or (self.rounds in self.looks and settled(self.found, divided=self.divided))
            or self.rounds >= self.looks[-1]
        )


def _next(entrants: Sequence[_Entrant]) -> _Entrant | None:
    """Whom more rounds are given: the first that is likely to stay; None: it is known to, or nobody is left.

    Where none is likely to, the one that comes nearest.
    """
    for each in entrants:
        if each.settled and each.stays:
            return None
        if not each.settled and each.found.ratio <= (margin(each.allowed) if each.divided else each.allowed):
            return each
    return min((each for each in entrants if not each.settled), key=lambda one: one.found.ratio, default=None)


def opened(path: Path, memories: Sequence[Memory], *, threads: int) -> list[Engine]:
    """A model in each of some memories, opened just now: those with the same arena are in one session.

    Args:
        path: of the model.
        memories: how activations are held.
        threads: of one inference.

    Raises:
        ModelInvalid: onnxruntime cannot run it.
    """
    arenas = dict.fromkeys(memory.arena for memory in memories)
    sessions = {arena: open_session(path, threads, arena=arena, spinning=False) for arena in arenas}
    return [Engine(sessions[memory.arena], memory) for memory in memories]
