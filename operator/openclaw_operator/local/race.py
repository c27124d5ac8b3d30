"""Waiting for whichever of several things happens first."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def race(*contenders: Coroutine[Any, Any, object]) -> None:
    """Returns once one of `contenders` has ended, and cancels the others.

    Raises:
        Exception: what a contender that ended has raised.
    """
    tasks = [asyncio.create_task(contender) for contender in contenders]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()
