"""Lets what can wait, wait until a burst is over."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")

CALM = 1.0
"""Seconds without a stir after which a burst is over."""
PATIENCE = 60.0
"""Seconds that nothing is made to wait longer than, however long the burst."""


class Calm(Generic[Key]):
    """Tells what may wait whether it has to, and when it need not any more.

    A crowd of services that start together shares one API server: what the last of them takes to serve grows with
    everything that is written meanwhile, for whichever of them.
    """

    def __init__(self, release: Callable[[Key], None]) -> None:
        """
        Args:
            release: Called with a key that waited, once it is worth asking again.
        """
        self._release = release
        self._stirred = float("-inf")
        self._until: dict[Key, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._until)

    def stir(self) -> None:
        """Something was started, or is ready now: calm is `CALM` seconds away."""
        self._stirred = asyncio.get_running_loop().time()

    def defers(self, key: Key) -> bool:
        """Whether the key has to wait; if so, it is released later."""
        now = asyncio.get_running_loop().time()
        until = self._until.setdefault(key, now + PATIENCE)
        if now >= min(until, self._stirred + CALM):
            del self._until[key]
            return False
        self._schedule()
        return True

    def forget(self, key: Key) -> None:
        """The key has nothing to wait for any more."""
        self._until.pop(key, None)

    def _schedule(self) -> None:
        if self._timer is None and self._until:
            when = min(self._stirred + CALM, *self._until.values())
            self._timer = asyncio.get_running_loop().call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        calm = now >= self._stirred + CALM
        for key in [key for key, until in self._until.items() if calm or now >= until]:
            self._release(key)
        if not calm:
            self._schedule()
