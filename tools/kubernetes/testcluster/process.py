"""Processes: commands that are waited for, and components that live as long as their cluster.

A component is killed with everything it started, and it never outlives the process that started it: the
kernel sends it SIGKILL when that one dies, however it dies (`setpriv --pdeathsig`, Linux).
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from testcluster.errors import CommandError, ComponentError
from testcluster.waiting import until

_LOG_TAIL = 3000  # characters of a log shown with an error


async def run(
    command: Sequence[str | Path],
    *,
    input: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
) -> str:
    """Run `command` to its end and return its standard output, decoded.

    Raises:
        CommandError: it ended with a status other than 0, or had to be killed after `timeout` seconds.
    """
    argv = [str(part) for part in command]
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL if input is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=None if env is None else {**os.environ, **env},
        cwd=cwd,
        start_new_session=True,
    )
    data = input.encode() if isinstance(input, str) else input
    try:
        output, error = await asyncio.wait_for(process.communicate(data), timeout)
    except TimeoutError:
        raise CommandError(argv, -signal.SIGKILL, output="", error=f"killed after {timeout:g} s") from None
    finally:
        # Also on cancellation: the command and what it started go with whoever waited for it.
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    status = process.returncode
    if status:
        raise CommandError(argv, status, output=output.decode(), error=error.decode(errors="replace"))
    return output.decode()


class Component:
    """One long-lived process with its log in a file."""

    def __init__(self, name: str, command: Sequence[str | Path], *, log: Path) -> None:
        self.name = name
        self.log = log
        self._command = [str(part) for part in command]
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self, *, enter: Sequence[str] = (), env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
    ) -> None:
        """Start the process, behind the command prefix `enter` (such as `nsenter ...`) if one is given."""
        argv = [*_dies_with_its_parent(), *enter, *self._command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=None if env is None else {**os.environ, **env},
                start_new_session=True,
                pass_fds=pass_fds,
            )

    @property
    def pid(self) -> int:
        """Process id; an error when the component was never started."""
        if self._process is None:
            raise ComponentError(f"{self.name} was not started")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs now."""
        return self._process is not None and self._process.poll() is None

    def check(self) -> None:
        """Raise ComponentError, with the end of the log, if the process ended by itself."""
        if not self.alive:
            status = None if self._process is None else self._process.returncode
            raise ComponentError(f"{self.name} ended with status {status}; {self.log} ends with:\n{self.tail()}")

    def tail(self) -> str:
        """The end of the log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return text[-_LOG_TAIL:]

    async def stop(self, *, grace: float = 0) -> None:
        """End the process and its process group: SIGKILL, or SIGTERM first when `grace` seconds are given."""
        process = self._process
        if process is None:
            return
        if grace and process.poll() is None:
            process.terminate()
            with contextlib.suppress(Exception):
                await until(self._ended, f"{self.name} ended", timeout=grace, interval=0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await until(self._ended, f"{self.name} is gone after SIGKILL", timeout=10, interval=0.01)

    async def _ended(self) -> bool:
        return not self.alive


def _dies_with_its_parent() -> list[str]:
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
