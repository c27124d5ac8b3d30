"""A server of bare HTTP that says what it was asked, and clients that send what no library would."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from openclaw.serving.http.bodies import Memory
from openclaw.serving.http.messages import Answer, Handler, Limits, Request
from openclaw.serving.http.server import HttpServer

DEADLINE = 10.0


@dataclass
class Echo:
    """Answers with what it was asked; slowly, where the path says so, once it is let go."""

    seen: list[Request] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: int = 0

    def __call__(self, request: Request) -> Answer | Awaitable[Answer]:
        self.seen.append(request)
        if request.path == "/fail":
            raise RuntimeError("on purpose")
        if request.path.startswith("/slow"):
            return self._later(request)
        if request.path == "/large":
            return Answer(200, (memoryview(b"x" * 2**24),))
        return self._answer(request)

    async def _later(self, request: Request) -> Answer:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self._answer(request)

    @staticmethod
    def _answer(request: Request) -> Answer:
        said = {"method": request.method, "path": request.path, "body": bytes(request.body).decode("latin-1")}
        return Answer(200, (json.dumps(said).encode(),))


class Client:
    """A bare connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *lines: str, body: bytes = b"") -> None:
        self.writer.write("\r\n".join((*lines, "", "")).encode("latin-1") + body)

    async def answer(self, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(headers["content-length"])) if has_body else b""
        return int(head[0].split()[1]), headers, body

    async def said(self) -> dict[str, str]:
        status, _, body = await self.answer()
        assert status == 200
        answer: dict[str, str] = json.loads(body)
        return answer

    async def ended(self) -> bool:
        """Whether the server has nothing more to say."""
        return await self.reader.read() == b""


@dataclass
class Site:
    """A server, and the clients that are connected to it."""

    server: HttpServer
    port: int
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.clients[-1]


@asynccontextmanager
async def serving(
    handler: Handler, limits: Limits | None = None, *, memory: Memory | None = None
) -> AsyncIterator[Site]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    site = Site(HttpServer(handler, limits=limits, memory=memory), listener.getsockname()[1])
    await site.server.start([listener])
    try:
        async with asyncio.timeout(DEADLINE):
            yield site
    finally:
        await site.server.stop(1)
        for client in site.clients:
            client.writer.transport.abort()
        # A transport tells its protocol of the end in the next turn of the loop.
        await asyncio.sleep(0)
