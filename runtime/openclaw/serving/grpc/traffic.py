"""Whether calls still come: gRPC's server fails those that arrive while it shuts down, so it must not do so early."""

from __future__ import annotations

import asyncio
from types import TracebackType

QUIET_SECONDS = 0.25
"""How long no call must have come for traffic to have ended."""
_POLL_SECONDS = 0.02


class Traffic:
    """Counts the calls under way: each is a ``with`` block; used from one event loop."""

    def __init__(self) -> None:
        self._under_way = 0
        self._last = float("-inf")

    def __enter__(self) -> None:
        self._under_way += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._under_way -= 1
        self._last = asyncio.get_running_loop().time()

    async def ended(self, until: float) -> bool:
        """Waits until no call is under way or came of late, or until ``loop.time()`` is ``until``; whether it ended."""
        loop = asyncio.get_running_loop()
        while self._under_way or loop.time() < self._last + QUIET_SECONDS:
            if loop.time() >= until:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True
