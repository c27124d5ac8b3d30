"""Waiting on conditions with a deadline: the one place of these tests that sleeps."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def until(holds: Callable[[], bool | Awaitable[bool]], *, deadline: float = 30.0, interval: float = 0.01) -> None:
    """Waits until `holds`, asked every `interval` seconds; fails after `deadline` seconds."""
    end = time.monotonic() + deadline
    while True:
        answer = holds()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < end, f"not within {deadline} s"
        await asyncio.sleep(interval)
