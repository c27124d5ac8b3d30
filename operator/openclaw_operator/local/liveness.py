"""Whether processes still run; for those that are nobody's children here, and so cannot be waited for."""

import asyncio
from collections.abc import Iterable

import psutil

_POLL_SECONDS = 0.03


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs. One that has ended and was not collected by its parent does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def have_ended(processes: Iterable[psutil.Process], *, within: float) -> bool:
    """Waits until none of `processes` runs any more; False where one still does after `within` seconds."""
    left = list(processes)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while left := [process for process in left if is_alive(process)]:
        if loop.time() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True
