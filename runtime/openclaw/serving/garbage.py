"""When Python's cyclic garbage collector runs, and how long it stops the process.

Reference counts free almost everything that a request leaves behind; the collector only finds cycles. By
default it walks all of the model's and the libraries' objects again and again, in the middle of requests.
Here what was loaded is frozen (never walked again, and its pages stay shared with forked workers; see
``gc.freeze``), the collector looks after a moment without requests, and the thresholds, raised, are only what
keeps memory bounded when there is never such a moment.

``OPENCLAW_GC=default`` leaves the collector as Python has it; pauses are measured all the same.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from openclaw.errors import ConfigInvalid

VARIABLE = "OPENCLAW_GC"
_CHOICES = ("managed", "default")


def managed(environment: Mapping[str, str]) -> bool:
    """Whether the collector is to be managed; raises ConfigInvalid for a value that is not known."""
    value = environment.get(VARIABLE, "managed")
    if value not in _CHOICES:
        raise ConfigInvalid(f"{VARIABLE} is {value!r:.80}; allowed: {', '.join(_CHOICES)}")
    return value == "managed"


class PauseRecorder(Protocol):
    """Where pauses are counted."""

    def gc_paused(self, generation: int, seconds: float) -> None:
        """One collection of ``generation`` (0 to 2) stopped the process for ``seconds``."""


class Pauses:
    """Measures every collection of this process from ``start`` to ``stop``.

    Python never runs two collections at once, so the recorder is called by one thread at a time.
    """

    def __init__(self, recorder: PauseRecorder) -> None:
        self._recorder = recorder
        self._began = 0.0

    def start(self) -> None:
        """Begins to measure."""
        gc.callbacks.append(self._called)

    def stop(self) -> None:
        """Ends it; does nothing where it did not begin."""
        if self._called in gc.callbacks:
            gc.callbacks.remove(self._called)

    def _called(self, phase: str, info: dict[str, Any]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._began = now
        elif self._began:
            self._recorder.gc_paused(info["generation"], now - self._began)


@dataclass(frozen=True, slots=True)
class Limits:
    """When to collect. Counts are container objects allocated and not freed since the last collection.

    Attributes:
        backstop: collect in the middle of requests from here on; older generations at Python's usual 10 : 1.
        young: fewer than this are not worth a collection, idle or not.
        idle_seconds: without a request for this long: the young generations.
        rest_seconds: without a request for this long: everything that is not frozen.
        full_after: collections of the middle generation before a full one is worth it.
        look_seconds: between two looks at an idle process that has nothing to collect.
    """

    backstop: int = 50_000
    young: int = 2_000
    idle_seconds: float = 0.02
    rest_seconds: float = 2.0
    full_after: int = 4
    look_seconds: float = 0.25


def settle(limits: Limits = Limits()) -> None:
    """Collects, freezes what is alive and raises the thresholds: before a fork, and once what stays was loaded.

    What was frozen before is not walked, so doing it again costs little.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(limits.backstop, 10, 10)


def restore(thresholds: tuple[int, int, int] = (700, 10, 10)) -> None:
    """Undoes ``settle``: everything is collected again, at ``thresholds``."""
    gc.unfreeze()
    gc.set_threshold(*thresholds)


class IdleCollector:
    """Collects on the event loop in moments without requests.

    Args:
        activity: a number that grows with each request that began or ended, and how many are in flight.
        limits: when to collect what.
    """

    def __init__(self, activity: Callable[[], tuple[float, float]], limits: Limits = Limits()) -> None:
        self._activity = activity
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self._seen = -1.0
        self._idle_since = 0.0
        self._rested = False

    def start(self) -> None:
        """Begins to look, unless it did; on the event loop."""
        self.stop()
        self._look(asyncio.get_running_loop())

    def stop(self) -> None:
        """Ends it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._note(loop.time())
        generation = self._due(loop.time() - self._idle_since)
        if generation is not None:
            gc.collect(generation)
            self._rested = generation == 2
        pending = gc.get_count()[0] >= self._limits.young
        delay = self._limits.idle_seconds if pending else self._limits.look_seconds
        self._timer = loop.call_later(delay, self._look, loop)

    def _note(self, now: float) -> None:
        seen, in_flight = self._activity()
        if in_flight or seen != self._seen:
            self._seen, self._idle_since, self._rested = seen, now, False

    def _due(self, idle: float) -> int | None:
        young, middle, old = gc.get_count()
        if idle < self._limits.idle_seconds:
            return None
        if idle >= self._limits.rest_seconds and not self._rested and old >= self._limits.full_after:
            return 2
        if young < self._limits.young:
            return None
        return 1 if middle >= 10 else 0
