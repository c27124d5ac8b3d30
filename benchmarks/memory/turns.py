"""Engines timed against each other, by turns in one process: processes differ by more than memories do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.graph.families.drawing import Feed
from benchmarks.memory.engine import opened
from benchmarks.memory.settings import SITTINGS

from openclaw.graph.properties import read_properties
from openclaw.memory.properties import memory_of
from openclaw.optimizer.measuring.engine import Engine
from openclaw.optimizer.measuring.timing import Plan, compare


def by_turns(files: Mapping[str, Path], feed: Feed, *, threads: int, plan: Plan) -> dict[str, tuple[float, ...]]:
    """Seconds of a run of each file in its memory: one figure a round, rounds being the same ones for all.

    Args:
        files: models that name their memory, by name of the engine.
        feed: the inputs.
        threads: of a run.
        plan: of one sitting.
    """
    rounds: dict[str, tuple[float, ...]] = dict.fromkeys(files, ())
    for sitting in range(SITTINGS):
        engines = {name: _opened(file, threads) for name, file in files.items()}
        # The second run with a pattern is the first that uses it.
        for engine in engines.values():
            engine.run_unchecked(feed)
        for name, more in compare(engines, [feed], plan=plan, seed=sitting).items():
            rounds[name] += tuple(more)
    return rounds


def _opened(file: Path, threads: int) -> Engine:
    memory = memory_of(read_properties(file), source=file.name)
    return Engine(opened(file, memory, threads=threads), memory)
