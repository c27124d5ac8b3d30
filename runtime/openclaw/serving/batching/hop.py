"""What it costs to have something run in another thread and to be told of its end; and what is quicker than that."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from statistics import median

from openclaw.serving.batching.profile import Profile

HOP_SECONDS = 100e-6
"""Where it was not measured, and at least: what is measured on an idle server leaves out the waiting for the GIL."""

_HOPS = 30
_SLACK = 2
"""How much slower than a hop is slow: a model that is about as quick as one stays where it is."""
_SLOW = 16
_TOO_SLOW = 40
"""Three slow runs in close succession; fewer are pauses of the machine."""


async def measure_hop(executor: Executor) -> float:
    """Seconds of the median hop from the running event loop to ``executor`` and back."""
    loop = asyncio.get_running_loop()
    taken = []
    for _ in range(_HOPS):
        start = time.perf_counter()
        await loop.run_in_executor(executor, int)
        taken.append(time.perf_counter() - start)
    return max(median(taken), HOP_SECONDS)


class Inline:
    """Which requests run on the event loop itself: those that take less than the hop to a thread.

    Attributes:
        nbytes: of the largest request that may; -1: none.
        slow: grows with each run that took longer than the hop, and shrinks with the others.
    """

    __slots__ = ("_proven", "hop", "nbytes", "slow")

    def __init__(self, hop: float) -> None:
        self.nbytes = -1
        self.slow = 0
        self.hop = hop
        self._proven = True

    def admits(self, profile: Profile, rows: int, *, nbytes: int) -> bool:
        """Whether a request of ``rows`` rows is quick enough; those that are no larger then are as well."""
        if not (self._proven and profile.known and profile.latency(rows) < self.hop):
            return False
        self.nbytes = max(self.nbytes, nbytes)
        return True

    def ran(self, seconds: float) -> None:
        """A run on the event loop took so long; need not be told of a quick one while ``slow`` is 0."""
        self.slow += _SLOW if seconds > self.hop * _SLACK else -1
        if self.slow > _TOO_SLOW:
            self.nbytes, self.slow = -1, 0
            self._proven = False

    def seen(self, seconds: float) -> None:
        """A run on a thread took so long; a quick one proves that runs may come back to the event loop."""
        self._proven = self._proven or seconds < self.hop
