"""Chooses how a model holds activations: the way that holds the least of those that are not slower, by measurement.

Few rows at a time hold the least, so they come first; within them the arenas, by what they were seen to hold. Only what
is about to be kept is timed, by turns with onnxruntime's default: holding is known after three runs, latency is not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from openclaw.errors import OpenClawError
from openclaw.graph.rows import rows_of, why_not_rows
from openclaw.inspection.memory import plan_of
from openclaw.memory.choice import DEFAULT, SLOWER, WORTH_WHILE, Way, quick, ranked, ways
from openclaw.memory.properties import Memory, written
from openclaw.optimizer.lossless import equal
from openclaw.optimizer.measuring import selection, timing
from openclaw.optimizer.measuring.bench import shapes_of
from openclaw.optimizer.measuring.engine import Engine, open_engine, open_session
from openclaw.optimizer.memory.cases import fewer_rows, first_rows
from openclaw.optimizer.memory.holding import held
from openclaw.optimizer.recipe import Feed
from openclaw.optimizer.results.report import Holding, MemoryChoice

log = logging.getLogger(__name__)

TIMING = timing.Plan(rounds=21, least=5, slice_seconds=0.06, seconds=12.0)
_HOPELESS = 1.08
_DIVIDING = 0.6
"""The part of the time for few rows at a time; the rest is for arenas with all of them."""
_MOST_TIMED = 3
"""Arenas that are timed for one number of rows: those that hold the least."""
_MIB = 1 << 20


@dataclass(frozen=True)
class Chosen:
    """How activations are held, and why."""

    memory: Memory
    report: MemoryChoice


def choose(
    model: onnx.ModelProto, path: Path, cases: Sequence[Feed], *, threads: int, asked: str, ends: float, seed: int = 0
) -> Chosen:
    """Measures the ways to hold a model's activations.

    Args:
        model: to plan.
        path: the same as a file, that runs on onnxruntime's own kernels.
        cases: inputs to measure on, by rising size.
        threads: of one inference.
        asked: ``auto``: a way may take ``SLOWER`` of the default's latency in each case; ``least``: any.
        ends: when no further way is begun, by ``time.perf_counter``.
        seed: of the order of timing.

    Raises:
        ModelInvalid, InferenceFailed: the model does not run with onnxruntime's own arena, or tells nothing of it.
    """
    return _Choice(model, path, cases, threads=threads, asked=asked, ends=ends, seed=seed).chosen()


class _Choice:
    def __init__(
        self,
        model: onnx.ModelProto,
        path: Path,
        cases: Sequence[Feed],
        *,
        threads: int,
        asked: str,
        ends: float,
        seed: int,
    ) -> None:
        self._model, self._path, self._cases = model, path, cases
        self._threads, self._asked, self._ends, self._seed = threads, asked, ends, seed
        self._own = [held(path, case, Memory(), threads=threads).held for case in cases]
        self._session: Any = open_session(path, threads)
        self._default = Engine(self._session)
        self._tried: list[Holding] = []

    def chosen(self) -> Chosen:
        """What is kept, after as many ways as there is time for."""
        if max(self._own) <= WORTH_WHILE:
            most = max(self._own) / _MIB
            return self._kept(None, f"they are {most:.1f} MiB, too little to be worth a change")
        whole = self._undivided()
        if whole is None:
            left = self._ends - time.perf_counter()
            until = self._ends - (1 - _DIVIDING) * left
            for rows in fewer_rows(self._cases[-1]):
                if time.perf_counter() < until and (way := self._best(rows)) is not None:
                    return self._kept(way, None)
        if time.perf_counter() >= self._ends:
            return self._kept(None, "there was no time left to measure others")
        way = self._best(None)
        return self._kept(way, whole if way else "every other way holds more, or is slower")

    def _undivided(self) -> str | None:
        """Why a batch is only run as a whole; None: it can be divided."""
        feed = self._cases[-1]
        reason = why_not_rows(self._default.signature)
        if reason is not None or not fewer_rows(feed):
            return reason or "there is no batch of several rows to measure"
        try:
            answer, row = self._default.run(feed), self._default.run(first_rows(feed, 1))
            if any(row[name].shape != (1, *array.shape[1:]) for name, array in answer.items()):
                return "an output has not a row for each row of the inputs"
            if rows_of(answer) != rows_of(feed):
                return "an output has not as many rows as the inputs"
            different = equal([answer], [Engine(self._session, Memory(rows=1)).run(feed)])
        except OpenClawError as error:
            return f"it does not run with other numbers of rows: {error}"
        return None if different is None else f"a row's answer depends on the others: {different}"

    def _best(self, rows: int | None) -> Way | None:
        """The way that is kept of those with so many rows at a time."""
        parts = [first_rows(case, rows) for case in self._cases]
        known = {way.name: way for way in ways(rows, self._planned(parts[-1]))}
        # Whether so few rows slow it down is told without any arena, and before these are measured.
        plain = next((way for way in known.values() if way.memory.arena is None), None)
        alone = self._timed(plain) if plain and self._asked == "auto" else []
        if plain and alone and not quick(alone):
            self._note(plain, [], alone, kept=False)
            return None
        figures = dict(self._held(known.values(), parts))
        order = ranked(figures, self._own)
        if plain and plain.name in order[_MOST_TIMED:]:
            order = [*order[: _MOST_TIMED - 1], plain.name]
        for name in order[:_MOST_TIMED]:
            way = known[name]
            if self._accepted(way, figures[name], alone if alone and way is plain else self._timed(way)):
                return way
            if time.perf_counter() >= self._ends:
                break
        return None

    def _accepted(self, way: Way, figures: Sequence[int], ratios: Sequence[float]) -> bool:
        """Whether a way that was timed is kept; the report gets a line of it."""
        kept = self._asked == "least" or quick(ratios)
        agrees = not kept or self._agrees(way)
        self._note(
            way, figures, ratios, kept=kept and agrees, why="" if agrees else "its answers are not the default's; "
        )
        return kept and agrees

    def _note(self, way: Way, figures: Sequence[int], ratios: Sequence[float], *, kept: bool, why: str = "") -> None:
        limit = f"{SLOWER} is allowed" if self._asked == "auto" else "the least was asked for"
        self._tried.append(
            Holding(
                name=way.name,
                arena=None if way.memory.arena is None else written(way.memory.arena),
                rows=way.memory.rows,
                held_bytes=list(figures),
                ratios=list(reversed(ratios)),
                outcome="kept" if kept else "refused",
                reason=f"{why}{max(ratios):.3f} of the default's latency; {limit}",
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

    def _timed(self, way: Way) -> list[float]:
        """Latency through the default's, in each case, the largest first; no further case for who is too slow."""
        engines = {DEFAULT: self._default, way.name: self._engine(way.memory)}
        ratios: list[float] = []
        for case in reversed(self._cases):
            if not quick(ratios) and self._asked != "least":
                break
            plan = timing.Plan(
                TIMING.rounds,
                TIMING.least,
                slice_seconds=TIMING.slice_seconds,
                seconds=min(TIMING.seconds, max(self._ends - time.perf_counter(), 1.0) / 3),
            )
            ratios.append(self._settled(way.name, engines, case=case, plan=plan))
        return ratios

    def _settled(self, name: str, engines: Mapping[str, Engine], *, case: Feed, plan: timing.Plan) -> float:
        """The median ratio of the rounds; while they leave open whether it is slower, more are run, a few times."""
        mine: list[float] = []
        default: list[float] = []
        for look in range(selection.LOOKS):
            rounds = timing.compare(
                engines,
                [case],
                plan=plan,
                seed=self._seed + look,
                stop=lambda seen: selection.hopeless(seen[name], seen[DEFAULT], worst=_HOPELESS),
            )
            mine += rounds[name]
            default += rounds[DEFAULT]
            ratio = selection.ratio(mine, default)
            open_ = ratio.median > SLOWER >= ratio.lower and not selection.hopeless(mine, default, worst=_HOPELESS)
            if not open_ or time.perf_counter() >= self._ends:
                break
        return ratio.median

    def _engine(self, memory: Memory) -> Engine:
        if memory.arena is None:
            return Engine(self._session, memory)
        return open_engine(self._path, self._threads, memory=memory)

    def _agrees(self, way: Way) -> bool:
        """Whether a way gives the default's answers; settings make no difference to them, but this is the last look."""
        engine = self._engine(way.memory)
        return all(equal([self._default.run(case)], [engine.run(case)]) is None for case in self._cases)

    def _planned(self, part: Feed) -> int | None:
        """Bytes of the plan's arena; None where sizes cannot be told without running."""
        shapes: Mapping[str, tuple[int, ...]] = {name: tuple(array.shape) for name, array in part.items()}
        try:
            return plan_of(self._model, name=self._path.name, shapes=shapes).plan.arena_bytes
        except Exception as error:
            # Shapes are inferred of graphs that nobody foresaw; without a plan there are other arenas.
            log.info("no plan of the memory: %s", error)
            return None

    def _kept(self, way: Way | None, reason: str | None) -> Chosen:
        if way is None:
            verdict = f"Activations are held as onnxruntime does: {reason}."
        else:
            mine, its = self._tried[-1].held_bytes[-1], self._own[-1]
            verdict = (
                f"Activations are held in {mine / _MIB:.1f} MiB where onnxruntime's default holds {its / _MIB:.1f}: "
                f"{way.name}, {self._tried[-1].reason}."
            )
            if reason is not None:
                verdict += f" Batches are run as a whole, for {reason}."
        report = MemoryChoice(
            asked=self._asked,
            kept=DEFAULT if way is None else way.name,
            verdict=verdict,
            shapes=[shapes_of(case) for case in self._cases],
            default_held_bytes=self._own,
            ways=self._tried,
        )
        return Chosen(Memory() if way is None else way.memory, report)
