"""SIGTERM and SIGINT as something to wait for: the first asks to stop, the second to hurry."""

from __future__ import annotations

import asyncio
import signal
import sys


class StopSignals:
    """The wish to stop, and whether the drain delay should be skipped."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()

    def install(self) -> None:
        """Listens to the process's signals on the running loop."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.request)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)

    def request(self) -> None:
        """Asks to stop; asked again, to hurry."""
        if self.stop.is_set():
            self.hurry.set()
        self.stop.set()

    def _interrupt(self) -> None:
        if sys.stdin is not None and sys.stdin.isatty():
            self.hurry.set()
        self.request()

    async def delay(self, seconds: float) -> None:
        """Waits ``seconds``, or until asked to hurry."""
        try:
            async with asyncio.timeout(seconds):
                await self.hurry.wait()
        except TimeoutError:
            return
