"""What a model holds in the arenas that come into question for it, by a few runs in each."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from openclaw.errors import OpenClawError
from openclaw.inspection.memory import Plans
from openclaw.memory.choice import Way, fitted, ways
from openclaw.memory.fitting import smallest_region
from openclaw.memory.profile import ArenaUse
from openclaw.optimizer.measuring.bench import shapes_of
from openclaw.optimizer.memory.cases import first_rows
from openclaw.optimizer.memory.holding import held
from openclaw.optimizer.recipe import Feed

log = logging.getLogger(__name__)


class Arenas:
    """Measures what one model holds in the same inputs.

    Args:
        model: to plan.
        path: the same as a file.
        cases: inputs, by rising size.
        threads: of one inference.
    """

    def __init__(self, model: onnx.ModelProto, path: Path, cases: Sequence[Feed], *, threads: int) -> None:
        self._plans, self._path, self._cases, self._threads = Plans(model, name=path.name), path, cases, threads
        self._known: dict[tuple[Way, str], ArenaUse | None] = {}

    def measured(self, rows: int | None, *, until: float) -> dict[Way, list[int]]:
        """Bytes held in each case, of all ways with so many rows at a time that the model runs in.

        Args:
            rows: at a time; None: all.
            until: no further size of a region is tried after that, by ``time.perf_counter``.
        """
        planned = self._planned(first_rows(self._cases[-1], rows))
        found = {way: uses for way in ways(rows, planned) if (uses := self.uses(way))}
        if found and (size := self._region(rows, {way: uses[-1] for way, uses in found.items()}, until=until)):
            way = fitted(rows, size)
            if uses := self.uses(way):
                found[way] = uses
        return {way: [use.held for use in uses] for way, uses in found.items()}

    def uses(self, way: Way) -> list[ArenaUse]:
        """In each case; none: the model does not run in it."""
        found = [use for case in self._cases if (use := self._use(way, case))]
        return found if len(found) == len(self._cases) else []

    def _use(self, way: Way, case: Feed) -> ArenaUse | None:
        """In the rows of a case that are run at once, measured once; None: the model does not run in it."""
        part = first_rows(case, way.memory.rows)
        key = way, str(shapes_of(part))
        if key not in self._known:
            try:
                self._known[key] = held(self._path, part, way.memory, threads=self._threads)
            except OpenClawError as error:
                log.info("%s: %s", way.name, error)
                self._known[key] = None
        return self._known[key]

    def _region(self, rows: int | None, seen: Mapping[Way, ArenaUse], *, until: float) -> int | None:
        """Bytes of the first region that holds less than what was seen in the largest case."""

        def held_with(size: int) -> int | None:
            if time.perf_counter() >= until:
                return None
            use = self._use(fitted(rows, size), self._cases[-1])
            return None if use is None else use.held

        needed = min(use.most_in_use for use in seen.values())
        return smallest_region(held_with, needed=needed, below=min(use.held for use in seen.values()))

    def _planned(self, part: Feed) -> int | None:
        """Bytes of the plan's arena; None where sizes cannot be told without running."""
        shapes: Mapping[str, tuple[int, ...]] = {name: tuple(array.shape) for name, array in part.items()}
        try:
            return self._plans.of(shapes).plan.arena_bytes
        except Exception as error:
            # Shapes are inferred of graphs that nobody foresaw; without a plan there are other arenas.
            log.info("no plan of the memory: %s", error)
            return None
