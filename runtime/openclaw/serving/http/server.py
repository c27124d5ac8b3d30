"""The server: listens, keeps count of connections and of their deadlines, and drains."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable

from openclaw.serving.http.bodies import Memory, Unbounded
from openclaw.serving.http.connection import HttpConnection
from openclaw.serving.http.heads import Heads
from openclaw.serving.http.messages import Handler, Limits

BACKLOG = 1024
_TICK = 1.0
"""Seconds between two looks at all deadlines: one timer for all connections costs less than one for each request."""
_POLL = 0.02


class HttpServer:
    """Answers HTTP/1.1 on any number of listening sockets.

    Attributes:
        draining: whether every answer ends its connection.
        heads: of requests, as far as they are remembered.
        memory: where large bodies lie.
        now: the loop's time, as of the latest look at it.
    """

    def __init__(self, handler: Handler, *, limits: Limits | None = None, memory: Memory | None = None) -> None:
        self.handler = handler
        self.memory: Memory = memory or Unbounded()
        self.limits = limits or Limits()
        self.draining = False
        self.heads = Heads()
        self.now = 0.0
        self._connections: set[HttpConnection] = set()
        self._servers: list[asyncio.Server] = []
        self._clock: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._connections)

    @property
    def in_flight(self) -> int:
        """Connections on which a request was begun and not answered yet."""
        return sum(connection.busy for connection in self._connections)

    async def start(self, listeners: Iterable[socket.socket]) -> None:
        """Answers on listening sockets from now on."""
        loop = asyncio.get_running_loop()
        self._look()
        for listener in listeners:
            server = await loop.create_server(lambda: HttpConnection(self), sock=listener, backlog=BACKLOG)
            self._servers.append(server)

    def drain(self) -> None:
        """Asks every client to hang up: with its next answer."""
        self.draining = True

    async def stop(self, timeout: float) -> None:
        """Stops accepting, waits at most ``timeout`` seconds for what is in flight, and closes everything."""
        self.draining = True
        for server in self._servers:
            server.close()
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        # What has arrived already is seen by the loop before it sees this again.
        await asyncio.sleep(_POLL)
        while self.in_flight and loop.time() < end:  # noqa: ASYNC110 - when bytes have left is the kernel's to say
            await asyncio.sleep(_POLL)
        for connection in tuple(self._connections):
            connection.abort() if connection.busy else connection.close()
        if self._clock:
            self._clock.cancel()
            self._clock = None
        await asyncio.sleep(0)

    def enter(self, connection: HttpConnection) -> bool:
        """Counts a connection; False where there are too many."""
        self._connections.add(connection)
        return len(self._connections) <= self.limits.max_connections

    def leave(self, connection: HttpConnection) -> None:
        """Forgets a connection that is gone."""
        self._connections.discard(connection)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self.now = now = loop.time()
        for connection in [each for each in self._connections if each.deadline <= now]:
            connection.overdue()
        self._clock = loop.call_later(_TICK, self._look)
