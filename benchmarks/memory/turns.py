"""An engine timed against the default, by turns in one process: processes differ by more than memories do."""

from __future__ import annotations

from pathlib import Path

from benchmarks.graph.families.drawing import Feed
from benchmarks.graph.figures import ratio
from benchmarks.memory.engine import opened
from benchmarks.memory.records import Turns
from benchmarks.memory.settings import SITTINGS, WITHIN

from openclaw.graph.properties import read_properties
from openclaw.memory.properties import memory_of
from openclaw.optimizer.measuring.engine import Engine
from openclaw.optimizer.measuring.timing import Plan, paired


def by_turns(file: Path, default: Path, feed: Feed, *, threads: int, plan: Plan, sittings: int) -> Turns:
    """Seconds of a run of a model in the memory that it names, and of the default in the same rounds.

    How many there are hangs on how far apart the bounds of their ratio are, never on where they lie.

    Args:
        file: of the model.
        default: what it is compared with.
        feed: the inputs.
        threads: of a run.
        plan: of one sitting, which begins with opening both anew.
        sittings: at most.
    """
    found = Turns(mine=(), default=())
    for sitting in range(sittings):
        if sitting >= SITTINGS and _told(found):
            break
        engines = _opened(file, threads), _opened(default, threads)
        # The second run with a pattern is the first that uses it.
        for engine in engines:
            engine.run_unchecked(feed)
        mine, its = paired(*engines, feed, plan=plan, seed=sitting)
        found = Turns(mine=(*found.mine, *mine), default=(*found.default, *its))
    return found


def _told(found: Turns) -> bool:
    """Whether it is told well enough how long the model takes."""
    through = ratio(found.mine, found.default)
    return through.high <= WITHIN * through.low


def _opened(file: Path, threads: int) -> Engine:
    memory = memory_of(read_properties(file), source=file.name)
    return Engine(opened(file, memory, threads=threads), memory)
