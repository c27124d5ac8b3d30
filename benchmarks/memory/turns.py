"""Engines timed against each other, by turns in one process: processes differ by more than memories do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.graph.families.drawing import Feed
from benchmarks.graph.figures import ratio
from benchmarks.memory.engine import opened
from benchmarks.memory.settings import CHOSEN, MOST_SITTINGS, SITTINGS, WITHIN

from openclaw.graph.properties import read_properties
from openclaw.memory.choice import DEFAULT
from openclaw.memory.properties import memory_of
from openclaw.optimizer.measuring.engine import Engine
from openclaw.optimizer.measuring.timing import Plan, compare


def by_turns(files: Mapping[str, Path], feed: Feed, *, threads: int, plan: Plan) -> dict[str, tuple[float, ...]]:
    """Seconds of a run of each file in its memory: one figure a round, rounds being the same ones for all.

    How many there are hangs on how far apart the bounds of a ratio are, never on where they lie.

    Args:
        files: models that name their memory, by name of the engine.
        feed: the inputs.
        threads: of a run.
        plan: of one sitting.
    """
    rounds: dict[str, tuple[float, ...]] = dict.fromkeys(files, ())
    for sitting in range(MOST_SITTINGS):
        if sitting >= SITTINGS and _told(rounds):
            break
        engines = {name: _opened(file, threads) for name, file in files.items()}
        # The second run with a pattern is the first that uses it.
        for engine in engines.values():
            engine.run_unchecked(feed)
        for name, more in compare(engines, [feed], plan=plan, seed=sitting).items():
            rounds[name] += tuple(more)
    return rounds


def _told(rounds: Mapping[str, Sequence[float]]) -> bool:
    """Whether it is told well enough how long what was chosen takes."""
    found = ratio(rounds[CHOSEN], rounds[DEFAULT])
    return found.high <= WITHIN * found.low


def _opened(file: Path, threads: int) -> Engine:
    memory = memory_of(read_properties(file), source=file.name)
    return Engine(opened(file, memory, threads=threads), memory)
