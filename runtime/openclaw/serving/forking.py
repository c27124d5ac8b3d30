"""The parent's side of the fork server and of the workers that it forks.

The fork server is forked from the parent while that has no threads and no event loop, so it has what it will load with
already, and in the same pages. One that died is replaced by a process of its own: by then the parent has both.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

from openclaw.config import ServerConfig
from openclaw.errors import STARTUP_ERRORS, ModelInvalid, OutOfMemory, StartupError
from openclaw.serving.counters import SharedCounters
from openclaw.serving.forkserver import MESSAGE_BYTES, run
from openclaw.serving.process import preload
from openclaw.serving.threads import in_thread

_REPORT_SECONDS = 1.0
"""How long the fork server may take to report an end that the worker's own silence told before."""


class Worker:
    """One worker process and the conversation with it, in lines."""

    def __init__(
        self, pid: int, code: asyncio.Future[int], *, conversation: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    ) -> None:
        """``code`` is its exit code once it is known."""
        self.pid = pid
        self._code = code
        self._reader, self._writer = conversation
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        self.gone = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        """Until the conversation ends, which is when the process does, whoever is left to report that."""
        with suppress(ConnectionError):
            while line := await self._reader.readline():
                self._lines.put_nowait(line.decode("utf-8", "replace").strip())
        self._lines.put_nowait("")
        self._writer.close()

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return not self.gone.done()

    async def warm(self) -> None:
        """Waits until its models answered an inference.

        Raises:
            StartupError: what the worker says, or what its end tells.
        """
        line = await self._lines.get()
        if line != "warm":
            raise failure(line, await self.ended(), doing="got ready")

    async def listen(self) -> None:
        """Lets it answer, and waits until it does; one that dies instead is noticed by who waits for its end."""
        self.tell("listen")
        await self._lines.get()

    def tell(self, word: str) -> None:
        """Writes one word; a worker that is gone does not hear it."""
        if self.alive and not self._writer.is_closing():
            self._writer.write(f"{word}\n".encode())

    async def ended(self) -> int:
        """Waits for its end; its exit code, below 0 the signal that killed it."""
        await asyncio.wait({self.gone})  # so that who gives up waiting does not end the conversation
        with suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self._code), _REPORT_SECONDS)
        return -signal.SIGKILL  # nobody is left to tell


class Process:
    """A fork server's process.

    Attributes:
        pid: its number.
        control: our end of the socket to it; it ends once that is closed.
    """

    def __init__(self, pid: int, control: socket.socket) -> None:
        control.setblocking(False)
        self.pid = pid
        self.control = control
        self._end: asyncio.Task[int] | None = None

    def reap(self) -> asyncio.Task[int]:
        """Has its end be noticed; gives its exit code, below 0 the signal that killed it."""
        self._end = self._end or asyncio.create_task(in_thread(_reaped, self.pid))
        return self._end

    async def wait(self) -> int:
        """Waits for its end; its exit code."""
        return await asyncio.shield(self.reap())

    async def stop(self) -> None:
        """Ends it; its workers go on."""
        self.control.close()
        await self.wait()


def _reaped(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forked() -> Process:
    """A fork server that shares what is in memory by now; only before this process has a thread or an event loop."""
    preload()
    # Else the collector would write into all pages of either process to look at what is in them.
    gc.collect()
    gc.freeze()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        run(theirs)
    theirs.close()
    return Process(pid, ours)


def started() -> Process:
    """A fork server that shares nothing with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        theirs.set_inheritable(True)
        command = [sys.executable, "-m", "openclaw.serving.forkserver", str(theirs.fileno())]
        nothing = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        return Process(os.posix_spawn(sys.executable, command, os.environ, file_actions=[nothing]), ours)


class Forks:
    """A running fork server: it loads, then forks one worker at a time.

    Attributes:
        alive: whether it can fork.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._control = process.control
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._codes: dict[int, asyncio.Future[int]] = {}
        self._turn = asyncio.Lock()
        self.alive = True
        asyncio.get_running_loop().add_reader(self._control, self._hear)

    @classmethod
    def start(cls, process: Process, config: ServerConfig, *, counters: SharedCounters) -> Forks:
        """Has a process be the fork server of this configuration; it loads the models."""
        forks = cls(process)
        document = json.dumps(config.model_dump(mode="json", by_alias=True))
        with suppress(BrokenPipeError, ConnectionResetError):  # it died; waiting for what it loaded tells why
            socket.send_fds(process.control, [f"load {document}".encode()], [counters.descriptor])
        return forks

    async def loaded(self) -> None:
        """Waits until everything is loaded. Raises StartupError: what it says, or what its end tells."""
        answer = await self._answers.get()
        if not answer.get("loaded"):
            raise failure(json.dumps(answer), await self._process.wait(), doing="loaded the model")

    async def fork(self, slot: int) -> Worker:
        """A new worker that owns a slot of the counters. Raises ModelInvalid where nobody is left to fork it."""
        ours, theirs = socket.socketpair()
        async with self._turn:
            with theirs:
                try:
                    socket.send_fds(self._control, [b"fork %d" % slot], [theirs.fileno()])
                    answer = await self._answers.get()
                except OSError:
                    answer = {}
        if "forked" not in answer:
            ours.close()
            raise failure("", await self._process.wait(), doing="forked a worker")
        pid = answer["forked"]
        return Worker(pid, self._code(pid), conversation=await asyncio.open_connection(sock=ours))

    def kill(self, worker: Worker) -> None:
        """Ends a worker that does not end by itself."""
        with suppress(OSError):
            self._control.send(b"kill %d" % worker.pid)

    async def stop(self) -> None:
        """Ends the fork server; its workers go on."""
        asyncio.get_running_loop().remove_reader(self._control)
        await self._process.stop()

    def _hear(self) -> None:
        try:
            message = self._control.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            message = b""
        if not message:
            asyncio.get_running_loop().remove_reader(self._control)
            self.alive = False
            self._process.reap()
            self._answers.put_nowait({})
            return
        answer = json.loads(message)
        if "ended" not in answer:
            self._answers.put_nowait(answer)
        else:
            self._code(answer["ended"]).set_result(answer["code"])

    def _code(self, pid: int) -> asyncio.Future[int]:
        """The exit code of a worker, which may end before its fork was answered."""
        return self._codes.setdefault(pid, asyncio.get_running_loop().create_future())


def failure(line: str, code: int, *, doing: str) -> StartupError:
    """Why a process ended: what it said last, or what its exit code tells."""
    said = json.loads(line) if line.startswith("{") else {}
    if "reason" in said:
        return STARTUP_ERRORS.get(said["reason"], ModelInvalid)(said["message"])
    if code == -signal.SIGKILL:
        return OutOfMemory(f"a worker was killed while it {doing}, most likely for its memory; raise the limit")
    return ModelInvalid(f"a worker ended with exit code {code} while it {doing}; the log above has the reason")
