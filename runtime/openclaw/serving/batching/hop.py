"""What it costs to have something run in another thread, and to be told of its end."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from statistics import median

HOP_SECONDS = 100e-6
"""Where it was not measured."""

_HOPS = 30


async def measure_hop(executor: Executor) -> float:
    """Seconds of the median hop from the running event loop to ``executor`` and back."""
    loop = asyncio.get_running_loop()
    taken = []
    for _ in range(_HOPS):
        start = time.perf_counter()
        await loop.run_in_executor(executor, int)
        taken.append(time.perf_counter() - start)
    return median(taken)
