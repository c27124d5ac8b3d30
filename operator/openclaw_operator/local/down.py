"""`openclaw local down`: ends the daemon, whatever state it is in, and what it may have left behind."""

from collections.abc import Callable

import psutil

from openclaw_operator.local.client import Client
from openclaw_operator.local.failures import ClientError
from openclaw_operator.local.home import Home
from openclaw_operator.local.liveness import have_ended

_PATIENCE = 20.0  # seconds in which a daemon that was asked must have ended
_INSISTENCE = 5.0  # seconds that the kernel may take to end one that is killed


async def down(home: Home, say: Callable[[str], None]) -> None:
    """Ends everything; returns once nothing is left."""
    running = home.daemon()
    if running:
        await _end(home, running.pid, say)
    left = home.is_left
    ended = await home.clean()
    if left and not running:
        say(f"removed what a killed daemon had left: its files and {ended} processes")
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
    except ClientError as failure:
        say(f"{failure}; it is sent a signal instead")
        process.terminate()
    if await have_ended([process], within=_PATIENCE):
        return
    say(f"the daemon has not ended within {_PATIENCE:.0f} s and is killed")
    process.kill()
    await have_ended([process], within=_INSISTENCE)
