"""A thread for one thing that takes long and cannot be interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs ``work`` on a thread of its own.

    Not the loop's own executor: closing the loop waits for that, and neither a load nor a run can be interrupted.
    """
    executor = ThreadPoolExecutor(1, thread_name_prefix=work.__name__)
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, lambda: work(*args, **kwargs))
    finally:
        executor.shutdown(wait=False)
