"""Taking turns between processes: what is built into the cache is built once."""

import fcntl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from testcluster.waiting import until

_PATIENCE = 3600  # seconds: the longest build there is, several times over


@asynccontextmanager
async def turn(file: Path, say: Callable[[str], None]) -> AsyncIterator[None]:
    """Hold the lock `file` (made if missing), which the kernel frees however this process ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:

        async def taken() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        if not await taken():
            say("waiting for another build to end")
            await until(taken, f"{file} is free", timeout=_PATIENCE, interval=0.2)
        yield
