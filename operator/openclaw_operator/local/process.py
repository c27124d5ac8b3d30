"""A program that runs in a process group of its own, writes to a file, and does not outlive this process."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Self

import psutil

_SHIM = Path(__file__).with_name("die_with_parent.py")
_INSIST = 0.2  # seconds between two requests to end, when it is to hurry
_LOG_LIMIT = 16 << 20  # bytes; a longer log is set aside when the program starts anew


class Process:
    """A running program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> Self:
        """Starts a program.

        Args:
            command: The program and its arguments.
            env: Its whole environment.
            cwd: Its working directory.
            log: File that its output is appended to.
        """
        with _appending(log) as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-I", "-S", str(_SHIM), str(os.getpid()), *command),
                env=dict(env),
                cwd=cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C in the terminal is for us: we decide in which order things stop.
                start_new_session=True,
            )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """Waits for its end. Returns the exit code as a shell tells it: 128 + N after signal N."""
        code = await self._process.wait()
        self._kill_group()  # what it left behind
        return code if code >= 0 else 128 - code

    async def stop(self, *, grace: float, hurry: asyncio.Event) -> int:
        """Asks it to end, and kills it with all its children if it has not in time. Returns its exit code.

        Args:
            grace: Seconds it may take.
            hurry: Once set, it is asked again and again: a server that drains skips its delay then. Asking twice at
                once would not do, since a signal that is pending already is not delivered a second time.
        """
        loop = asyncio.get_running_loop()
        ended, hurried = asyncio.create_task(self.wait()), asyncio.create_task(hurry.wait())
        deadline = loop.time() + grace
        try:
            while not ended.done() and (left := deadline - loop.time()) > 0:
                self._signal(signal.SIGTERM)
                if hurry.is_set():
                    left = min(left, _INSIST)
                    await asyncio.wait({ended}, timeout=left)
                else:
                    await asyncio.wait({ended, hurried}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self._kill_group()
            return await ended
        finally:
            hurried.cancel()

    def usage(self) -> tuple[float, int]:
        """CPU seconds used so far, and bytes of memory in use, by it and its children; zeros once it is gone."""
        seconds, memory = 0.0, 0
        try:
            root = psutil.Process(self.pid)
            members = [root, *root.children(recursive=True)]
        except psutil.Error:
            return 0.0, 0
        for member in members:
            try:
                with member.oneshot():
                    times = member.cpu_times()
                    seconds += times.user + times.system
                    memory += member.memory_info().rss
            except psutil.Error:
                continue
        return seconds, memory

    def _signal(self, number: signal.Signals) -> None:
        try:
            self._process.send_signal(number)
        except ProcessLookupError:
            return

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


def _appending(log: Path) -> BinaryIO:
    """The file to write to; one that has grown too long is set aside."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))
    return log.open("ab")
