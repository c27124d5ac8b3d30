"""Chooses how a model holds activations: the way that holds the least of those that are not slower, by measurement.

Fewer rows at a time hold far less where they are quick enough, so these come first, all numbers of them at once. Then
arenas for the fewest that are; and for all rows where none of these stays, as one of those nearly always does. Of
arenas only what is about to be kept is timed: what is held is known after three runs, latency is not.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from openclaw.errors import OpenClawError
from openclaw.graph.rows import rows_of, why_not_rows
from openclaw.memory.choice import DEFAULT, SLOWER, WORTH_WHILE, Way, ranked, ways
from openclaw.memory.properties import Memory, written
from openclaw.optimizer.lossless import equal
from openclaw.optimizer.measuring.bench import shapes_of
from openclaw.optimizer.measuring.engine import Engine
from openclaw.optimizer.memory.arenas import Arenas
from openclaw.optimizer.memory.cases import fewer_rows, first_rows
from openclaw.optimizer.memory.holding import held
from openclaw.optimizer.memory.racing import Race, Timed, opened
from openclaw.optimizer.recipe import Feed
from openclaw.optimizer.results.report import Holding, MemoryChoice

log = logging.getLogger(__name__)

_NUMBERS = 2 / 3
"""The part of the time for how many rows are run at a time, and of what is left of it for the arenas of those."""
_FITTING = 1 / 2
"""The part of the time for the arenas of one number of rows in which sizes of a first region are tried."""
_MOST_TIMED = 3
"""Arenas that are timed for one number of rows: those that hold the least."""
_NO_OTHER = "every other way holds more, or is slower"
_MIB = 1 << 20


@dataclass(frozen=True)
class Chosen:
    """How activations are held, and why."""

    memory: Memory
    report: MemoryChoice


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
        self._path, self._cases, self._threads, self._asked, self._ends = path, cases, threads, asked, ends
        allowed = math.inf if asked == "least" else allowed
        self._race = Race(path, cases, threads=threads, allowed=allowed, seed=seed)
        self._arenas = Arenas(model, path, cases, threads=threads)
        self._own = [held(path, case, Memory(), threads=threads).held for case in cases]
        self._tried: dict[str, Holding] = {}

    def chosen(self) -> Chosen:
        """What is kept, after as many ways as there is time for."""
        if max(self._own) <= WORTH_WHILE:
            most = max(self._own) / _MIB
            return self._kept(None, f"they are {most:.1f} MiB, too little to be worth a change")
        if time.perf_counter() >= self._ends:
            return self._kept(None, "there was no time left to measure others")
        undivided = self._undivided()
        if undivided is not None:
            whole = self._best(None, until=self._ends)
            return self._kept(whole, undivided if whole else _NO_OTHER)
        kept = self._fewest()
        if kept is None or (kept.memory.arena is None and self._asked != "least"):
            whole = self._best(None, until=self._ends)
            kept = min(filter(None, (kept, whole)), key=self._holds, default=None)
        return self._kept(kept, None if kept else _NO_OTHER)

    def _undivided(self) -> str | None:
        """Why a batch is only run as a whole; None: it can be divided."""
        feed = self._cases[-1]
        default, by_row = self._opened(Memory(), Memory(rows=1))
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
        for rows, timed in self._numbers():
            if (way := self._best(rows, until=_by(_NUMBERS, self._ends), plain=timed)) is not None:
                return way
        return None

    def _numbers(self) -> Iterator[tuple[int, Timed | None]]:
        """Numbers of rows at a time that are quick enough in onnxruntime's own arena, the fewest first."""
        numbers = fewer_rows(self._cases[-1])
        if self._asked == "least":
            yield from ((rows, None) for rows in numbers if time.perf_counter() < self._ends)
            return
        raced = self._race.run([next(ways(rows, None)) for rows in numbers], until=_by(_NUMBERS, self._ends))
        for timed in raced:
            self._note(timed)
        yield from ((rows, timed) for rows, timed in zip(numbers, raced, strict=True) if timed.stays)

    def _holds(self, way: Way) -> int:
        """Bytes that a way was seen to hold in the largest case."""
        return self._tried[way.name].held_bytes[-1]

    def _best(self, rows: int | None, *, until: float, plain: Timed | None = None) -> Way | None:
        """The way that is kept of those with so many rows at a time.

        Args:
            rows: at a time; None: all.
            until: none is begun after that.
            plain: what is known already: that onnxruntime's own arena stays.
        """
        # Where time is up, what was timed before will do.
        if plain and time.perf_counter() >= until:
            figures = {plain.way: [use.held for use in self._arenas.uses(plain.way)]}
        else:
            figures = self._arenas.measured(rows, until=_by(_FITTING, until))
        for place, way in enumerate(ranked(figures, self._own)):
            now = time.perf_counter()
            if plain and way == plain.way:
                timed = plain
            elif (place == 0 and not plain) or (place < _MOST_TIMED and now < until):
                (timed,) = self._race.run([way], until=(now + until) / 2)
            else:
                continue
            if self._accepted(timed, figures[way]):
                return way
        return None

    def _accepted(self, timed: Timed, figures: Sequence[int]) -> bool:
        """Whether a way that was timed is kept; the report gets a line of it."""
        agrees = not timed.stays or self._agrees(timed.way)
        self._note(timed, figures, why="" if agrees else "its answers are not the default's; ")
        return timed.stays and agrees

    def _note(self, timed: Timed, figures: Sequence[int] = (), *, why: str = "") -> None:
        memory = timed.way.memory
        self._tried[timed.way.name] = Holding(
            name=timed.way.name,
            arena=None if memory.arena is None else written(memory.arena),
            rows=memory.rows,
            held_bytes=list(figures),
            ratios=[one.ratio for one in reversed(timed.found)],
            outcome="kept" if timed.stays and not why else "refused",
            reason=f"{why}{timed.reason}",
        )

    def _agrees(self, way: Way) -> bool:
        """Whether a way gives the default's answers; settings make no difference to them, but this is the last look."""
        default, engine = self._opened(Memory(), way.memory)
        return all(equal([default.run(case)], [engine.run(case)]) is None for case in self._cases)

    def _opened(self, *memories: Memory) -> Sequence[Engine]:
        return opened(self._path, memories, threads=self._threads)

    def _kept(self, way: Way | None, reason: str | None) -> Chosen:
        why = "it holds no less" if way is None else "another holds less"
        tried = self._tried.values()
        ways = [each if way and each.name == way.name else _outdone(each, why) for each in tried]
        if way is None:
            verdict = f"Activations are held as onnxruntime does: {reason}."
        else:
            kept = self._tried[way.name]
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


def _by(part: float, ends: float) -> float:
    """When a part of the time until then is over."""
    now = time.perf_counter()
    return now + part * (ends - now)


def _outdone(way: Holding, why: str) -> Holding:
    """A way that is not kept, though it was quick enough."""
    if way.outcome == "refused":
        return way
    return way.model_copy(update={"outcome": "refused", "reason": f"{way.reason}; {why}"})
