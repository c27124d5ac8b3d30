"""`openclaw local down`: ends the daemon, whatever state it is in, and what it may have left behind."""

import asyncio
from collections.abc import Callable

import psutil

from openclaw_operator.local.client import Client, ClientError
from openclaw_operator.local.home import Home

_PATIENCE = 20.0  # seconds in which a daemon that was asked must have ended
_INSISTENCE = 5.0  # seconds after which one that was sent SIGTERM is killed


async def down(home: Home, say: Callable[[str], None]) -> None:
    """Ends everything; returns once nothing is left."""
    running = home.daemon()
    if running:
        await _end(home, running.pid, say)
    left = await asyncio.to_thread(home.clean)
    if left:
        say(f"ended {left} processes that a killed daemon had left")
    say("local mode is down" if running else "local mode was not running")


async def _end(home: Home, pid: int, say: Callable[[str], None]) -> None:
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    say(f"ending the daemon (process {pid}) and its servers")
    try:
        async with Client(home.control) as client:
            await client.down()
        await asyncio.to_thread(process.wait, _PATIENCE)
    except (ClientError, psutil.TimeoutExpired) as failure:
        say(f"the daemon does not end by itself ({failure}); it is being killed")
        await asyncio.to_thread(_kill, process)


def _kill(process: psutil.Process) -> None:
    try:
        process.terminate()
        process.wait(_INSISTENCE)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(_INSISTENCE)
    except psutil.NoSuchProcess:
        return
