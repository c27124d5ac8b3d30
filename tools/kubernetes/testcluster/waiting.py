"""Waiting on conditions with a deadline: the one place of this package that sleeps."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from testcluster.errors import DeadlineError

T = TypeVar("T")


async def until(condition: Callable[[], Awaitable[T]], what: str, *, timeout: float, interval: float = 0.1) -> T:
    """Return the first true value of `condition`, asked every `interval` seconds.

    Raises:
        DeadlineError: `condition` was not true within `timeout` seconds; `what` names it.
    """
    deadline = time.monotonic() + timeout
    while True:
        if value := await condition():
            return value
        if time.monotonic() >= deadline:
            raise DeadlineError(f"{what}: not so after {timeout:g} s")
        await asyncio.sleep(interval)
