"""Arenas timed against each other, by turns in one process: processes differ by more than arenas do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.graph.families.drawing import Feed
from benchmarks.memory.engine import opened

from openclaw.memory.arena import Arena, ShrinkingRuns
from openclaw.optimizer.measuring.engine import Engine
from openclaw.optimizer.measuring.timing import Plan, compare


class _Timed(Engine):
    """A session with an arena."""

    def __init__(self, session: Any, arena: Arena | None) -> None:
        super().__init__(session)
        if arena is not None:
            self._run = ShrinkingRuns(session, arena).run


def by_turns(
    model: Path, arenas: Mapping[str, Arena | None], feed: Feed, *, threads: int, plan: Plan
) -> dict[str, tuple[float, ...]]:
    """Seconds of a run with each arena: one figure a round, rounds being the same ones for all."""
    engines = {
        name: _Timed(opened(model, arena, threads=threads, profile=None), arena) for name, arena in arenas.items()
    }
    # The second run with a pattern is the first that uses it.
    for engine in engines.values():
        engine.run_unchecked(feed)
    return {name: tuple(rounds) for name, rounds in compare(engines, [feed], plan=plan, seed=0).items()}
