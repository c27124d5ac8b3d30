"""What it costs to have something run in another thread and to be told of its end; and what is quicker than that."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Executor
from statistics import median

from openclaw.serving.batching.profile import Profile

HOP_SECONDS = 100e-6
"""Where it was not measured, and at least: what is measured on an idle server leaves out the waiting for the GIL."""

_HOPS = 30
_SLACK = 2
"""Hops from which on a run is slow: a model that is about as quick as one stays where it is."""
_SLACK_EACH = 0.5
"""Hops more for every further request that shares the run: each of them would have had to be taken to a thread."""
_SLOW = 16
_TOO_SLOW = 40
"""Three slow runs in close succession; fewer are pauses of the machine."""
_FIRST_BAR, _LONGEST_BAR = 1.0, 60.0
"""Seconds for which a model that was slow is kept off the event loop: twice as long each time, until it was good for as
long as it may last. What runs on threads under load are batches, which may never be quick enough to end it earlier."""


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
        slow: grows with each run that took longer than the hop, and shrinks with the requests of the others.
    """

    __slots__ = ("_bar", "_barred_until", "_clock", "hop", "nbytes", "slow")

    def __init__(self, hop: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.nbytes = -1
        self.slow = 0
        self.hop = hop
        self._clock = clock
        self._bar = _FIRST_BAR
        self._barred_until = -math.inf

    def admits(self, profile: Profile, rows: int, *, nbytes: int) -> bool:
        """Whether a request of ``rows`` rows is quick enough; those that are no larger then are as well."""
        if not (profile.known and profile.latency(rows) < self.hop and self._clock() >= self._barred_until):
            return False
        self.nbytes = max(self.nbytes, nbytes)
        return True

    def ran(self, seconds: float, *, rows: int, requests: int = 1) -> None:
        """A run on the event loop took so long; need not be told of a quick one while ``slow`` is 0."""
        allowed = self.hop * (_SLACK + _SLACK_EACH * (requests - 1))
        self.slow = max(0, self.slow + (_SLOW if seconds > allowed else -rows))
        if self.slow > _TOO_SLOW:
            self.nbytes, self.slow = -1, 0
            now = self._clock()
            good = now - self._barred_until
            self._bar = _FIRST_BAR if good > _LONGEST_BAR else min(2 * self._bar, _LONGEST_BAR)
            self._barred_until = now + self._bar

    def seen(self, seconds: float) -> None:
        """A run on a thread took so long; a quick one proves that runs may come back to the event loop."""
        if seconds < self.hop:
            self._barred_until = min(self._barred_until, self._clock())
