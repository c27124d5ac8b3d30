"""What one serving process tells of itself: its counts, published on time, and its garbage collector's pauses."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from openclaw.serving import garbage
from openclaw.serving.counters import SharedCounters
from openclaw.serving.recording import PUBLISH_SECONDS, ServingMetrics

if TYPE_CHECKING:
    from openclaw.serving.exposition import Exposition


class SharedLedger:
    """What the processes of one server have taken of their memory, in the slots of their counters."""

    def __init__(self, counters: SharedCounters, slot: int) -> None:
        self._counters = counters
        self._own = counters.slot(slot)
        self._slot = slot

    def tell(self, size: int) -> None:
        """This process has so many bytes."""
        self._own.taken = size

    def others(self) -> int:
        """Bytes that the others have."""
        return self._counters.taken_by_others(self._slot)


class Telemetry:
    """Counts in one slot of counters that all processes of the server share, and answers scrapes for all.

    Attributes:
        metrics: what is counted.
        ledger: where processes tell what memory they have taken; None where this is the only one.
    """

    def __init__(self, counters: SharedCounters, *, slot: int = 0) -> None:
        self.metrics = ServingMetrics(counters, slot=slot)
        self.ledger = SharedLedger(counters, slot) if counters.slots > 1 else None
        self._counters = counters
        self._exposition: Exposition | None = None
        self._pauses = garbage.Pauses(self.metrics)
        self._collector = garbage.IdleCollector(self.metrics.activity)
        self._timer: asyncio.TimerHandle | None = None
        self._longest_run: Callable[[], float] = float

    def watch(self, longest_run: Callable[[], float]) -> None:
        """Tells all processes of the server from now on for how many seconds the oldest run of a model has gone on."""
        self._longest_run = longest_run

    def stalled(self) -> float:
        """Seconds for which the worst of all processes has neither ended a run nor turned its event loop.

        Whoever is asked: a probe reaches any of the processes, and seldom the one that is stuck.
        """
        # Published first: else another process, asked next, would still say that all is well.
        return max(self._beat(), self._counters.stalled(time.monotonic()))

    def start(self) -> None:
        """Publishes from now on, on the running event loop."""
        self._pauses.start()
        self._publish(asyncio.get_running_loop())

    def settle(self) -> None:
        """From now on the garbage collector keeps out of the way of requests; again once more is there to stay."""
        if garbage.managed(os.environ):
            garbage.settle()
            self._collector.start()

    def stop(self) -> None:
        """Publishes a last time."""
        self._pauses.stop()
        self._collector.stop()
        if self._timer:
            self._timer.cancel()
        self.metrics.publish()

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition in the format that ``accept`` prefers, and its content type; on any thread."""
        # Imported by the first scrape: a cold start need not wait for it.
        from openclaw.serving.exposition import Exposition

        self.metrics.publish()
        self._exposition = self._exposition or Exposition(self._counters)
        return self._exposition.render(accept)

    def _publish(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beat()
        self.metrics.publish()
        self._timer = loop.call_later(PUBLISH_SECONDS, self._publish, loop)

    def _beat(self) -> float:
        now, longest = time.monotonic(), self._longest_run()
        self.metrics.beat(now, since=now - longest)
        return longest
