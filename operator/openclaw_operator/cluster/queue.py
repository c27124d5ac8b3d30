"""A queue of keys: each at most once, never two at a time, the urgent first, failures with a growing delay."""

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Generic, TypeVar

Key = TypeVar("Key")

FIRST_DELAY = 0.5
MAX_DELAY = 300.0


class Priority(IntEnum):
    """What goes first. A service that only waits to be called ready must not stand behind a crowd of new ones,
    and one that has merely progressed can wait until there is nothing better to do.
    """

    FINISHING = 0
    NEW = 1
    PROGRESS = 2


class Queue(Generic[Key]):
    """Keys that are due, and `workers` tasks that work them off.

    A key added while it is being worked on is worked on once more afterwards. A key added again while it waits keeps
    the earlier time and the higher priority.
    """

    def __init__(self, work: Callable[[Key], Awaitable[float | None]], *, workers: int) -> None:
        """
        Args:
            work: Called with a key; returns the seconds after which the key is due again, or None. An exception
                brings the key back after a delay that doubles from one failure to the next.
            workers: Keys worked on at the same time.
        """
        self._work = work
        self._workers = workers
        self._order = itertools.count()
        self._ready: list[tuple[int, int, Key]] = []
        self._waiting: dict[Key, tuple[Priority, float]] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._active: dict[Key, float] = {}
        self._finished = 0.0
        self._again: dict[Key, Priority] = {}
        self._failures: dict[Key, int] = {}
        self._free = asyncio.Semaphore(0)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing is due and nothing is being worked on; delayed keys do not count."""
        return not self._waiting and not self._active

    def overdue(self) -> float:
        """Seconds by which the work is behind: 0 where none is due.

        That is the time that the key longest worked on has taken; or, where it is more, the time that the key longest
        due has waited without any other having been finished meanwhile. A long queue that moves is not behind.
        """
        now = asyncio.get_running_loop().time()
        hanging = max((now - since for since in self._active.values()), default=0.0)
        waiting = max((now - since for _, since in self._waiting.values()), default=0.0)
        return max(hanging, min(waiting, now - self._finished))

    def add(self, key: Key, priority: Priority = Priority.NEW) -> None:
        """Makes the key due now."""
        timer = self._timers.pop(key, None)
        if timer:
            timer.cancel()
        if key in self._active:
            self._again[key] = min(priority, self._again.get(key, priority))
            return
        known = self._waiting.get(key)
        if known and known[0] <= priority:
            return
        since = known[1] if known else asyncio.get_running_loop().time()
        self._waiting[key] = (priority, since)
        heapq.heappush(self._ready, (priority, next(self._order), key))
        self._free.release()

    def add_after(self, key: Key, delay: float) -> None:
        """Makes the key due after `delay` seconds, unless it is due or will be before."""
        loop = asyncio.get_running_loop()
        pending = self._timers.get(key)
        if key in self._waiting or (pending and pending.when() <= loop.time() + delay):
            return
        if pending:
            pending.cancel()
        self._timers[key] = loop.call_later(delay, self._due, key)

    async def run(self) -> None:
        """Works keys off until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._worker())

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key, Priority.PROGRESS)

    async def _worker(self) -> None:
        while True:
            await self._free.acquire()
            priority, _, key = heapq.heappop(self._ready)
            current = self._waiting.get(key)
            if current is None or current[0] != priority:
                continue  # taken already, under a higher priority
            del self._waiting[key]
            self._active[key] = asyncio.get_running_loop().time()
            try:
                await self._attempt(key)
            finally:
                del self._active[key]
                self._finished = asyncio.get_running_loop().time()
                again = self._again.pop(key, None)
                if again is not None:
                    self.add(key, again)

    async def _attempt(self, key: Key) -> None:
        try:
            delay = await self._work(key)
        except Exception as failure:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            after = getattr(failure, "after", None)
            self.add_after(key, after if after is not None else _back_off(failures))
        else:
            self._failures.pop(key, None)
            if delay is not None:
                self.add_after(key, delay)


def _back_off(failures: int) -> float:
    """Seconds to wait after so many failures in a row; the exponent is bounded, since a float's is."""
    return min(FIRST_DELAY * 2.0 ** min(failures - 1, 16), MAX_DELAY)
