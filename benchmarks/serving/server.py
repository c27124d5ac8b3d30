"""A server's process from start to end: it answers rightly before it is measured, and nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path

from benchmarks.serving import wire
from benchmarks.serving.models import Arrays
from benchmarks.serving.subjects import Served

_START = 120.0  # seconds that a server may take to answer
_END = 15.0  # seconds that it may take to end before it is killed
_SPARE = 4
_POLL = 0.05  # seconds
_SETTLE = 60.0  # seconds
_LOOK = 0.4  # seconds over which a server is idle or not
_AFTER_READY = 1.5  # seconds after which a server has begun whatever it does once it is up
_IDLE = 0.3  # of a core; LitServe takes half of that when it has nothing to do


class ServerError(Exception):
    """A server did not start, or answers wrongly; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        pausable: whether `pause` has an effect; what outlives no pause goes on.
        started: time.monotonic() just before its process was made.
        ready: seconds from there to its first answered inference.
    """

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    pausable: bool
    started: float
    ready: float

    @property
    def pid(self) -> int:
        """Of its first process."""
        return self.process.pid

    def resident(self) -> int:
        """Bytes of memory that its processes hold, shared pages once for each (statm, proc(5))."""
        page, total = os.sysconf("SC_PAGE_SIZE"), 0
        for pid in _family(self.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
        return total

    def settle(self) -> None:
        """Waits until it is idle: what a load left in its queues would be charged to the next one.

        Gives up after a while: a server that is never idle is measured as it is.
        """
        tick, end = threading.Event(), time.monotonic() + _SETTLE
        tick.wait(self.started + self.ready + _AFTER_READY - time.monotonic())
        spent = self.cpu_seconds()
        while time.monotonic() < end:
            tick.wait(_LOOK)
            before, spent = spent, self.cpu_seconds()
            if spent - before < _IDLE * _LOOK:
                return

    def cpu_seconds(self) -> float:
        """That its processes have spent (stat, proc(5))."""
        ticks = 0
        for pid in _family(self.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Lets it go on until the end of the block; it is paused before and afterwards."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def pause(self) -> None:
        """Keeps its processes from running: what they do at rest would be charged to whoever is measured."""
        if self.pausable:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        for pid in _family(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> int:
        """SIGTERM, and the exit code; killed where it does not end."""
        self._signal(signal.SIGCONT)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END)
        return self.kill()

    def kill(self) -> int:
        """Ends it and its children at once."""
        # All of them are in the group that the first one was made in.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self.process.wait()


@contextmanager
def running(
    served: Served, request: wire.Post, *, expected: Arrays | None = None, variables: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Starts it, waits until it answers `request`, ends it.

    Args:
        served: what is started.
        request: is sent until it is answered.
        expected: what the answer has to be, as `differences` has it; None: any.
        variables: more of its environment.

    Raises:
        ServerError: it does not start, or answers otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as folder:
        server = spawned(served, folder=Path(folder), variables=variables or {})
        server = answering(server, request, name=served.name, expected=expected)
        try:
            yield server
        finally:
            server.kill() if served.subject.kind == "bare" else server.stop()


def start(served: Served, request: wire.Post, *, folder: Path, expected: Arrays | None = None) -> Server:
    """Starts a server that the caller ends, and waits until it answers.

    Raises:
        ServerError: it does not start, or answers otherwise than `expected`.
    """
    return answering(spawned(served, folder=folder), request, name=served.name, expected=expected)


def spawned(served: Served, *, folder: Path, variables: Mapping[str, str] = {}) -> Server:
    """The process alone, on a free port; `folder` gets its log and what it writes beside."""
    port, spare, *_ = free_ports(1 + _SPARE)
    log = folder / f"{port}.log"
    fixed = {"OPENCLAW_CACHE_DIR": str(folder / "cache"), "OPENCLAW_TERMINATION_LOG": str(folder / "termination.log")}
    with log.open("wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            served.command(port, spare),
            env={**served.environment(), **fixed, **variables},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Server(process, port, log, served.subject.pausable, started=started, ready=0.0)


def answering(server: Server, request: wire.Post, *, name: str, expected: Arrays | None = None) -> Server:
    """The server once it answers `request`; ended where it does not.

    Raises:
        ServerError: it does not, or answers otherwise than `expected`.
    """
    try:
        answer = _first_answer(server, request)
        ready = time.monotonic() - server.started
        if expected is not None and (wrong := differences(answer, expected)):
            raise ServerError(f"{name} answers wrongly: {wrong}")
    except BaseException:
        server.kill()
        raise
    return replace(server, ready=ready)


def _first_answer(server: Server, request: wire.Post) -> Arrays:
    said, tick = "nothing listened", threading.Event()
    while time.monotonic() < server.started + _START:
        if (code := server.process.poll()) is not None:
            raise ServerError(f"it ended with {code}:\n{_tail(server.log)}")
        try:
            return wire.ask(server.port, request)
        except (OSError, HTTPException, wire.StatusError) as error:
            said = str(error)
        tick.wait(_POLL)
    raise ServerError(f"it did not answer within {_START:.0f} s ({said}):\n{_tail(server.log)}")


def differences(answer: Arrays, expected: Arrays) -> str:
    """What an answer has wrong, in words; empty where every output is as onnxruntime alone has it.

    Batches and padding change the order of sums, so the last digits may differ.
    """
    if answer.keys() != expected.keys():
        return f"it has the outputs {sorted(answer)}, not {sorted(expected)}"
    for name, array in expected.items():
        got = answer[name]
        if got.shape != array.shape:
            return f"{name} has the shape {got.shape}, not {array.shape}"
        # Comparisons with NaN are false, so NaN differs from everything.
        if not (far := float(abs(got - array).max())) <= 1e-3 * float(abs(array).max()):
            return f"{name} is off by up to {far:.3g}"
    return ""


def free_ports(count: int) -> list[int]:
    """The first of `count` ports in a row that nobody has now, and those after it."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            first = _bound(stack, 0)
            return [first, *(_bound(stack, first + more) for more in range(1, count))]


def _bound(stack: contextlib.ExitStack, port: int) -> int:
    probe = stack.enter_context(socket.socket())
    probe.bind(("127.0.0.1", port))
    return int(probe.getsockname()[1])


def _family(pid: int) -> list[int]:
    """A process and all that came of it (children of each of its threads, proc(5))."""
    found = [pid]
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                found += _family(int(child))
    return found


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
