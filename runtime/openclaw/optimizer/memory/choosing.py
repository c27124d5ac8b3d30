"""Chooses how a model holds activations: the way that holds the least of those that are not slower, by measurement.

Arenas for all rows come first, by what they were seen to hold: one of them nearly always stays. In the time that is
left fewer rows at a time are tried, the fewest first, which hold far less where they are quick enough. Only what is
about to be kept is timed, by turns with onnxruntime's default: holding is known after two runs, latency is not. Both
are opened anew every few rounds, as sessions of one model in one memory differ by a percent or two by chance. Threads
do not spin meanwhile, as a server's do not: to wake them for every operator costs the more, the fewer rows it has.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from openclaw.errors import OpenClawError
from openclaw.graph.rows import rows_of, why_not_rows
from openclaw.inspection.memory import Plans
from openclaw.memory.arena import Arena
from openclaw.memory.choice import DEFAULT, SLOWER, WORTH_WHILE, Way, ranked, ways
from openclaw.memory.properties import Memory, written
from openclaw.optimizer.lossless import equal
from openclaw.optimizer.measuring import selection, timing
from openclaw.optimizer.measuring.bench import shapes_of
from openclaw.optimizer.measuring.engine import Engine, open_session
from openclaw.optimizer.memory.cases import fewer_rows, first_rows
from openclaw.optimizer.memory.comparing import LOOKS, LOOKS_DIVIDED, MUCH_SLOWER, Compared, compared, stays
from openclaw.optimizer.memory.holding import held
from openclaw.optimizer.recipe import Feed
from openclaw.optimizer.results.report import Holding, MemoryChoice

log = logging.getLogger(__name__)

TIMING = timing.Plan(rounds=LOOKS[-1], least=5, slice_seconds=0.06, seconds=40.0)
"""Of one way, in one case. It takes at most half of the time that is left, too."""
_SITTING = 4
"""Rounds after which sessions are opened anew: even the first look is at two openings."""
_HOPELESS_ROUNDS = 4
"""What is much slower in every one of so many is not timed any further."""
_WHOLE = 0.5
"""The part of the time for arenas with all rows; the rest is for fewer rows at a time."""
_MOST_TIMED = 3
"""Arenas that are timed for one number of rows: those that hold the least."""
_NO_OTHER = "every other way holds more, or is slower"
_MIB = 1 << 20


@dataclass(frozen=True)
class Chosen:
    """How activations are held, and why."""

    memory: Memory
    report: MemoryChoice


@dataclass(frozen=True)
class _Timed:
    """What was found of a way in each case, the largest first, and whether it is quick enough to stay."""

    found: Sequence[Compared]
    stays: bool


class Chooser:
    """Measures the ways to hold a model's activations, once.

    Args:
        model: to plan.
        path: the same as a file, that runs on onnxruntime's own kernels.
        cases: inputs to measure on, by rising size.
        threads: of one inference.
        asked: ``auto``: a way may take ``allowed`` of the default's latency in each case; ``least``: any.
        ends: when no further way is begun, by ``time.perf_counter``.
        seed: of the order of timing.
        allowed: of the default's latency; at 1 a way may be no slower, as far as can be told.

    Raises:
        ModelInvalid, InferenceFailed: the model does not run with onnxruntime's own arena, or tells nothing of it.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        path: Path,
        cases: Sequence[Feed],
        *,
        threads: int,
        asked: str,
        ends: float,
        seed: int = 0,
        allowed: float = SLOWER,
    ) -> None:
        self._plans, self._path, self._cases = Plans(model, name=path.name), path, cases
        self._threads, self._asked, self._ends, self._seed = threads, asked, ends, seed
        self._allowed = allowed
        self._own = [held(path, case, Memory(), threads=threads).held for case in cases]
        self._tried: list[Holding] = []

    def chosen(self) -> Chosen:
        """What is kept, after as many ways as there is time for."""
        if max(self._own) <= WORTH_WHILE:
            most = max(self._own) / _MIB
            return self._kept(None, f"they are {most:.1f} MiB, too little to be worth a change")
        now = time.perf_counter()
        if now >= self._ends:
            return self._kept(None, "there was no time left to measure others")
        undivided = self._undivided()
        if undivided is not None:
            whole = self._best(None, until=self._ends)
            return self._kept(whole, undivided if whole else _NO_OTHER)
        if self._asked == "least":
            kept = self._fewest() or self._best(None, until=self._ends)
        else:
            whole = self._best(None, until=now + _WHOLE * (self._ends - now))
            kept = min(filter(None, (self._fewest(), whole)), key=self._holds, default=None)
        return self._kept(kept, None if kept else _NO_OTHER)

    def _undivided(self) -> str | None:
        """Why a batch is only run as a whole; None: it can be divided."""
        feed = self._cases[-1]
        by_row, default = self._opened(Memory(rows=1))
        reason = why_not_rows(default.signature)
        if reason is not None or not fewer_rows(feed):
            return reason or "there is no batch of several rows to measure"
        try:
            answer, row = default.run(feed), default.run(first_rows(feed, 1))
            if any(row[name].shape != (1, *array.shape[1:]) for name, array in answer.items()):
                return "an output has not a row for each row of the inputs"
            if rows_of(answer) != rows_of(feed):
                return "an output has not as many rows as the inputs"
            different = equal([answer], [by_row.run(feed)])
        except OpenClawError as error:
            return f"it does not run with other numbers of rows: {error}"
        return None if different is None else f"a row's answer depends on the others: {different}"

    def _fewest(self) -> Way | None:
        """The way with the fewest rows at a time that stays."""
        for rows in fewer_rows(self._cases[-1]):
            if time.perf_counter() < self._ends and (way := self._best(rows, until=self._ends)) is not None:
                return way
        return None

    def _holds(self, way: Way) -> int:
        """Bytes that a way was seen to hold in the largest case."""
        return next(each.held_bytes[-1] for each in self._tried if each.name == way.name)

    def _best(self, rows: int | None, *, until: float) -> Way | None:
        """The way that is kept of those with so many rows at a time; none is begun after ``until``."""
        parts = [first_rows(case, rows) for case in self._cases]
        known = {way.name: way for way in ways(rows, self._planned(parts[-1]))}
        # Whether so few rows slow it down is told without any arena, and before these are measured.
        plain = next((way for way in known.values() if way.memory.arena is None), None)
        alone = self._timed(plain, until=until) if plain and self._asked == "auto" else None
        if plain and alone and not alone.stays:
            self._note(plain, [], alone.found, kept=False)
            return None
        # Where time is up, that will do.
        enough: Iterable[Way] = [plain] if plain and alone and time.perf_counter() >= until else known.values()
        figures = dict(self._held(enough, parts))
        order = ranked(figures, self._own)
        timed = order[:_MOST_TIMED]
        for name in order:
            way = known[name]
            if alone and way is plain:
                found = alone
            elif name in timed and ((name == timed[0] and not alone) or time.perf_counter() < until):
                found = self._timed(way, until=until)
            else:
                continue
            if self._accepted(way, figures[name], found):
                return way
        return None

    def _accepted(self, way: Way, figures: Sequence[int], timed: _Timed) -> bool:
        """Whether a way that was timed is kept; the report gets a line of it."""
        agrees = not timed.stays or self._agrees(way)
        kept = timed.stays and agrees
        self._note(way, figures, timed.found, kept=kept, why="" if agrees else "its answers are not the default's; ")
        return kept

    def _note(self, way: Way, figures: Sequence[int], found: Sequence[Compared], *, kept: bool, why: str = "") -> None:
        worst = max(found, key=lambda one: one.ratio)
        limit = f"{self._allowed:.3g} is allowed" if self._asked == "auto" else "the least was asked for"
        if self._asked == "auto" and not why and kept != (worst.ratio <= self._allowed):
            told = "no slower beyond the noise" if kept else "it may be slower, by the noise"
            limit = f"{told} of {worst.rounds} rounds"
        self._tried.append(
            Holding(
                name=way.name,
                arena=None if way.memory.arena is None else written(way.memory.arena),
                rows=way.memory.rows,
                held_bytes=list(figures),
                ratios=[one.ratio for one in reversed(found)],
                outcome="kept" if kept else "refused",
                reason=f"{why}{worst} of the default's latency; {limit}",
            )
        )

    def _held(self, found: Iterable[Way], parts: Sequence[Feed]) -> Iterator[tuple[str, list[int]]]:
        """By name of a way what it holds in each case; cases of equal parts are measured once."""
        for way in found:
            known: dict[str, int] = {}
            try:
                for part in parts:
                    shapes = str(shapes_of(part))
                    if shapes not in known:
                        known[shapes] = held(self._path, part, way.memory, threads=self._threads).held
            except OpenClawError as error:
                log.info("%s: %s", way.name, error)
                continue
            yield way.name, [known[str(shapes_of(part))] for part in parts]

    def _timed(self, way: Way, *, until: float) -> _Timed:
        """A way by turns with the default, in each case, the largest first; no further case for who is too slow."""
        divided = way.memory.rows is not None
        looks = LOOKS_DIVIDED if divided else LOOKS
        found: list[Compared] = []
        for case in reversed(self._cases):
            seconds = min(TIMING.seconds, max(until - time.perf_counter(), 1.0) / 2)
            mine, default = self._turns(way, case, looks=looks, seconds=seconds)
            found.append(compared(mine, default, allowed=self._allowed))
            if self._asked != "least" and not stays(mine, default, divided=divided, allowed=self._allowed):
                return _Timed(found, stays=False)
        return _Timed(found, stays=True)

    def _turns(self, way: Way, case: Feed, *, looks: Sequence[int], seconds: float) -> tuple[list[float], list[float]]:
        """Rounds of a way and of the default, until it is settled whether it is slower, or time is up."""
        ends = time.perf_counter() + seconds
        mine: list[float] = []
        default: list[float] = []
        for look in looks if self._asked == "auto" else looks[:1]:
            while (lacking := min(look, TIMING.rounds) - len(mine)) > 0:
                left = ends - time.perf_counter()
                if left <= 0 and len(mine) >= TIMING.least:
                    return mine, default
                plan = replace(TIMING, rounds=min(lacking, _SITTING), least=1, seconds=max(left, 0.0))
                seen = self._sitting(way, case, plan=plan, seed=self._seed + len(mine))
                mine += seen[way.name]
                default += seen[DEFAULT]
                if selection.hopeless(mine, default, worst=MUCH_SLOWER, after=_HOPELESS_ROUNDS):
                    return mine, default
            if not compared(mine, default, allowed=self._allowed).open:
                break
        return mine, default

    def _sitting(self, way: Way, case: Feed, *, plan: timing.Plan, seed: int) -> dict[str, list[float]]:
        """Some rounds of a way and of the default, opened just now."""
        engines = dict(zip((way.name, DEFAULT), self._opened(way.memory), strict=True))
        for engine in engines.values():
            # The second run with a pattern is the first that uses it.
            engine.run_unchecked(case)
        return timing.compare(engines, [case], plan=plan, seed=seed)

    def _opened(self, memory: Memory) -> tuple[Engine, Engine]:
        """The model in a memory, and as onnxruntime holds it by default: in one session where their arena is one."""
        session = self._session(None)
        return Engine(session if memory.arena is None else self._session(memory.arena), memory), Engine(session)

    def _session(self, arena: Arena | None) -> Any:
        return open_session(self._path, self._threads, arena=arena, spinning=False)

    def _agrees(self, way: Way) -> bool:
        """Whether a way gives the default's answers; settings make no difference to them, but this is the last look."""
        mine, default = self._opened(way.memory)
        return all(equal([default.run(case)], [mine.run(case)]) is None for case in self._cases)

    def _planned(self, part: Feed) -> int | None:
        """Bytes of the plan's arena; None where sizes cannot be told without running."""
        shapes: Mapping[str, tuple[int, ...]] = {name: tuple(array.shape) for name, array in part.items()}
        try:
            return self._plans.of(shapes).plan.arena_bytes
        except Exception as error:
            # Shapes are inferred of graphs that nobody foresaw; without a plan there are other arenas.
            log.info("no plan of the memory: %s", error)
            return None

    def _kept(self, way: Way | None, reason: str | None) -> Chosen:
        ways = [each if way is None or each.name == way.name else _outdone(each) for each in self._tried]
        if way is None:
            verdict = f"Activations are held as onnxruntime does: {reason}."
        else:
            kept = next(each for each in ways if each.name == way.name)
            mine, its = kept.held_bytes[-1], self._own[-1]
            verdict = (
                f"Activations are held in {mine / _MIB:.1f} MiB where onnxruntime's default holds {its / _MIB:.1f}: "
                f"{way.name}, {kept.reason}."
            )
            if reason is not None:
                verdict += f" Batches are run as a whole, for {reason}."
        report = MemoryChoice(
            asked=self._asked,
            kept=DEFAULT if way is None else way.name,
            verdict=verdict,
            shapes=[shapes_of(case) for case in self._cases],
            default_held_bytes=self._own,
            ways=ways,
        )
        return Chosen(Memory() if way is None else way.memory, report)


def _outdone(way: Holding) -> Holding:
    """A way that is not kept, though it was quick enough: another holds less."""
    if way.outcome == "refused":
        return way
    return way.model_copy(update={"outcome": "refused", "reason": f"{way.reason}; another holds less"})
