"""SIGTERM under constant load: two servers take turns to be replaced, as in a rolling update, and nobody may notice.

Clients hear of a server's end a while after it was told to stop, as endpoints travel through a cluster; until then they
send it new requests and open new connections to it. Each request that is not answered with 200 has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving import wire
from benchmarks.serving.models import ServedModel
from benchmarks.serving.server import Server, start
from benchmarks.serving.session import samples_of
from benchmarks.serving.subjects import SUBJECTS, Served

CONNECTIONS = 64
_PATIENCE = 30.0  # seconds that a request, or the end of a server, may take


@dataclass(slots=True)
class Rolled:
    """What came of it.

    Attributes:
        failures: how often each reason.
        endings: seconds from SIGTERM to the end of the process, and its exit code.
    """

    answered: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    endings: list[tuple[float, int]] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Requests that were not answered with 200."""
        return self.failures.total()

    def document(self) -> dict[str, object]:
        """As JSON has it."""
        return {"answered": self.answered, "failures": dict(self.failures), "endings": self.endings}

    @property
    def holds(self) -> bool:
        """Whether nothing failed, and every server ended with 0."""
        return not self.failed and all(code == 0 for _, code in self.endings)


class Clients:
    """Connections that are always busy.

    Args:
        request: as bytes.
        rolled: where is counted.
    """

    def __init__(self, request: bytes, rolled: Rolled) -> None:
        self.ports: list[int] = []
        self._turn = itertools.count()
        self._request = request
        self._rolled = rolled
        self._over = False

    def stop(self) -> None:
        """Each connection finishes what it is at."""
        self._over = True

    async def keep_busy(self) -> None:
        """One connection; anew where the server closes it, or is no longer one to be used."""
        while not self._over:
            port = self.ports[next(self._turn) % len(self.ports)]
            try:
                async with asyncio.timeout(_PATIENCE):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except (OSError, TimeoutError) as error:
                self._rolled.failures[f"cannot connect: {type(error).__name__}"] += 1
                continue
            try:
                await self._use(reader, writer, port)
            except (OSError, EOFError, TimeoutError) as error:
                self._rolled.failures[f"broken: {type(error).__name__}"] += 1
            finally:
                writer.close()

    async def _use(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        while port in self.ports and not self._over:
            writer.write(self._request)
            async with asyncio.timeout(_PATIENCE):
                status, closing = await answered(reader)
            if status == 200:
                self._rolled.answered += 1
            else:
                self._rolled.failures[f"status {status}"] += 1
            if closing:
                return


async def answered(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """The status of one answer, read to its end, and whether the connection closes after it (RFC 9112).

    Raises:
        EOFError: the connection ended before the answer did.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    await reader.readexactly(int(headers.get("content-length", "0")))
    return int(status_line.split()[1]), headers.get("connection", "").lower() == "close"


async def roll(model: ServedModel, *, times: int, told_after: float, say: Callable[[str], None]) -> Rolled:
    """Replaces servers under load.

    Args:
        model: that is asked.
        times: that a server is told to stop.
        told_after: seconds from SIGTERM until clients stop using the server; less than its drain delay.
        say: tells the terminal what happens.

    Raises:
        ServerError: a server does not start.
    """
    # As users have it: with the delay in which it still answers.
    served = Served(SUBJECTS[0], model, arguments=())
    request = wire.post(model.name, samples_of(model, 1)[0], binary=False)
    rolled = Rolled()
    clients = Clients(request.encoded(), rolled)
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as folder:
        servers: list[Server] = []

        async def add() -> None:
            servers.append(await asyncio.to_thread(start, served, request, folder=Path(folder)))
            clients.ports.append(servers[-1].port)

        try:
            await add()
            await add()
            async with asyncio.TaskGroup() as group:
                for _ in range(CONNECTIONS):
                    group.create_task(clients.keep_busy())
                for number in range(times):
                    await _replaced(servers.pop(0), clients, rolled, told_after=told_after)
                    seconds, code = rolled.endings[-1]
                    say(
                        f"SIGTERM {number + 1} of {times}: ended with {code} after {seconds:.1f} s; "
                        f"{rolled.answered} answered, {rolled.failed} failed"
                    )
                    await add()
                clients.stop()
        finally:
            for server in servers:
                server.kill()
    return rolled


async def _replaced(server: Server, clients: Clients, rolled: Rolled, *, told_after: float) -> None:
    """Tells it to stop, lets clients hear of it later, and waits for its end."""
    server.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    await asyncio.sleep(told_after)
    clients.ports.remove(server.port)
    await asyncio.to_thread(_ended, server)
    rolled.endings.append((round(time.monotonic() - began, 1), server.kill()))


def _ended(server: Server) -> None:
    # One that does not end is killed after this, and its exit code says so.
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.process.wait(_PATIENCE)
