"""onnxruntime's arena for the activations of one session: settings as a value, and how a session gets them.

What the settings do (onnxruntime's ``bfc_arena.cc``): the arena grows by regions, and cuts chunks from them that it
merges again when they are free. It holds regions until the session ends, or until a run is told to give back those that
are wholly free. With a pattern the first run with some shapes takes a chunk for every tensor, and each run after it one
chunk for all, in which onnxruntime has planned them; unless the first run gives back what it took, both are held.

The provider's own option ``arena_extend_strategy`` has no effect on the CPU (measured on 1.31), so the settings take
the way over an allocator of the environment. Registering one replaces the last; a session keeps the one that was there
when it was made. So sessions do not share an arena, as long as registering and making a session is one step: see
:func:`arena_of`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from threading import Lock
from typing import Any

import onnxruntime

from openclaw.memory.trimming import trim

_MOST_INITIAL = (1 << 31) - 1
"""onnxruntime keeps the size of the first region in 32 bits."""
_making = Lock()


class Growth(Enum):
    """How large a new region of the arena is."""

    NEXT_POWER_OF_TWO = "next power of two"
    """Twice the last one, or more if that is too little; the first has the initial size."""
    SAME_AS_REQUESTED = "same as requested"
    """What is asked for; the initial size counts for nothing."""


class Shrink(Enum):
    """Which runs give back regions that they leave free."""

    NEVER = "never"
    NEW_SHAPES = "new shapes"
    """The first with inputs of some shapes: what it took to find out a pattern, and what other shapes needed."""
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Arena:
    """Settings of an arena.

    Attributes:
        growth: how large a new region is.
        initial_bytes: of the first region; None: onnxruntime's own, 1 MiB.
        largest_bytes: that regions double up to; None: onnxruntime's own, 1 GiB.
        dead_bytes: how much larger than asked for a chunk may be that is given out whole; None: onnxruntime's own,
            128 MiB, or twice what is asked for. At least 1: onnxruntime 1.31 crashes with 0.
        pattern: whether runs after the first with the same shapes take one chunk for all, planned by onnxruntime.
        shrink: which runs give back regions that they leave free.
    """

    growth: Growth = Growth.SAME_AS_REQUESTED
    initial_bytes: int | None = None
    largest_bytes: int | None = None
    dead_bytes: int | None = None
    pattern: bool = False
    shrink: Shrink = Shrink.NEVER

    def __post_init__(self) -> None:
        """Refuses what onnxruntime would crash with."""
        for name in ("initial_bytes", "largest_bytes", "dead_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} of an arena is {value}; it must be at least 1, or None")

    def settings(self) -> dict[str, int]:
        """As onnxruntime's ``OrtArenaCfg`` takes them; -1 and a limit of 0 stand for its own."""
        initial = -1 if self.initial_bytes is None else min(self.initial_bytes, _MOST_INITIAL)
        return {
            "max_mem": 0,
            "arena_extend_strategy": int(self.growth is Growth.SAME_AS_REQUESTED),
            "initial_chunk_size_bytes": initial,
            "max_dead_bytes_per_chunk": -1 if self.dead_bytes is None else self.dead_bytes,
            "initial_growth_chunk_size_bytes": -1,
            "max_power_of_two_extend_bytes": -1 if self.largest_bytes is None else self.largest_bytes,
        }


class ShrinkingRuns:
    """Runs of one session with an arena: ``run`` is the session's, and gives back what the settings say."""

    def __init__(self, session: Any, arena: Arena) -> None:
        self._session = session
        self._arena = arena
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._seen: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()

    def run(self, names: Any, feeds: Mapping[str, Any]) -> Any:
        """As ``InferenceSession.run``; for several threads at once."""
        if not self._gives_back(feeds):
            return self._session.run(names, feeds, None)
        results = self._session.run(names, feeds, self._options)
        if self._arena.shrink is Shrink.NEW_SHAPES:
            # The arena has given it back to the heap, which keeps it. Rare enough to be worth milliseconds.
            trim()
        return results

    def _gives_back(self, feeds: Mapping[str, Any]) -> bool:
        if self._arena.shrink is not Shrink.NEW_SHAPES:
            return self._arena.shrink is Shrink.ALWAYS
        shapes = tuple((name, tuple(array.shape)) for name, array in feeds.items())
        # Two threads may both find shapes new, and both give back: that does no harm.
        if shapes in self._seen:
            return False
        self._seen.add(shapes)
        return True


@contextmanager
def arena_of(options: Any, arena: Arena | None) -> Iterator[None]:
    """A session that is made inside of these options has an arena of its own with these settings; None: the default's.

    Args:
        options: the session's, which are changed.
        arena: the settings.
    """
    if arena is None:
        yield
        return
    options.enable_mem_pattern = arena.pattern
    options.add_session_config_entry("session.use_env_allocators", "1")
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    # Another thread that registers its own between here and the session's making would swap the two.
    with _making:
        onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(arena.settings()))
        yield
