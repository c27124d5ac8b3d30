"""Open loop: requests are due at their times whether or not earlier ones are answered.

Latency counts from when a request was due, not from when it could be sent: a server that stalls is charged for all who
would have come meanwhile (Gil Tene's "coordinated omission"). One thread on plain sockets and epoll, rather than
asyncio, whose timers are whole milliseconds: the quickest servers here answer in a tenth of one.
"""

from __future__ import annotations

import contextlib
import gc
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import httptools
from benchmarks.serving.figures import percentile

CONNECTIONS = 256
_CHUNK = 1 << 18
_LEAD = 0.05  # seconds from the last connection to the first request
_REFUSALS = {429, 503}


@dataclass(slots=True)
class Outcome:
    """What came of it.

    Attributes:
        latencies: seconds from due to answered, of every request answered with 200.
        refused: answered with 429 or 503: the server was busy and said so.
        failed: another status, a broken connection, or no answer in time.
        late: seconds from due, or from when a connection was free, to sent: how far the client itself was behind.
    """

    latencies: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0
    late: list[float] = field(default_factory=list)

    @property
    def lag(self) -> float:
        """p99 of the client's own lateness, seconds: latencies of this size are not the server's."""
        return percentile(self.late, 0.99)


class _Connection:
    """One keep-alive connection, with at most one request on it."""

    __slots__ = ("closing", "due", "parser", "socket", "status", "stuck", "unsent")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.parser = httptools.HttpResponseParser(self)
        self.due = -1.0
        self.status = 0
        self.closing = False
        self.unsent = memoryview(b"")
        self.stuck = False  # the kernel takes no more for now

    @property
    def busy(self) -> bool:
        return self.due >= 0

    def send(self) -> bool:
        """Whether all of the request is with the kernel."""
        with contextlib.suppress(BlockingIOError):
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        return not self.unsent

    def on_message_complete(self) -> None:
        self.status = self.parser.get_status_code()
        self.closing = not self.parser.should_keep_alive()


class OpenLoop:
    """One run: some requests, each due at its time.

    Args:
        port: of the server, on loopback.
        due: seconds from the start, ascending.
        requests: as bytes; request number n is the one at n modulo their count.
        connections: at most so many requests are under way; more wait here, and the wait counts.
        patience: seconds after the last one was due; what is not answered then has failed.
    """

    def __init__(
        self,
        port: int,
        due: Sequence[float],
        *,
        requests: Sequence[bytes],
        connections: int = CONNECTIONS,
        patience: float = 5.0,
    ) -> None:
        self._port = port
        self._due = due
        self._requests = [memoryview(each) for each in requests]
        self._end = (due[-1] if due else 0.0) + patience
        self._outcome = Outcome()
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._wanted = min(connections, max(1, len(due)))
        self._free: deque[_Connection] = deque()
        self._next = 0
        self._settled = 0
        self._freed = 0.0  # when there was a connection again after there had been none

    def run(self) -> Outcome:
        """Sends all of them and waits for the answers; takes at most until the end of its patience."""
        with self._epoll:
            try:
                self._open()
                # The collector would stop the clock that everything is measured with.
                gc.disable()
                self._loop()
            finally:
                gc.enable()
                for connection in self._connections.values():
                    connection.socket.close()
        self._outcome.failed += len(self._due) - self._settled
        return self._outcome

    def _loop(self) -> None:
        start = time.perf_counter() + _LEAD
        while self._settled < len(self._due):
            now = time.perf_counter() - start
            if now > self._end:
                return
            self._send_what_is_due(now)
            wait = max(0.0, self._due[self._next] - now) if self._may_send() else self._end - now
            if wait > 0:
                # epoll rounds up to milliseconds; select() on its descriptor does not.
                select.select([self._epoll.fileno()], [], [], wait)
            for descriptor, events in self._epoll.poll(0):
                self._serve(self._connections[descriptor], events, start)

    def _may_send(self) -> bool:
        return self._next < len(self._due) and bool(self._free)

    def _send_what_is_due(self, now: float) -> None:
        while self._may_send() and self._due[self._next] <= now:
            connection, due = self._free.popleft(), self._due[self._next]
            connection.due = due
            connection.unsent = self._requests[self._next % len(self._requests)]
            self._next += 1
            self._outcome.late.append(now - max(due, self._freed))
            self._send(connection)

    def _send(self, connection: _Connection) -> None:
        try:
            sent = connection.send()
        except OSError:
            self._broken(connection)
            return
        if sent == connection.stuck:
            connection.stuck = not sent
            self._epoll.modify(connection.socket.fileno(), select.EPOLLIN | (0 if sent else select.EPOLLOUT))

    def _serve(self, connection: _Connection, events: int, start: float) -> None:
        if events & select.EPOLLOUT:
            self._send(connection)
        if events & ~select.EPOLLOUT and connection.socket.fileno() >= 0:
            self._receive(connection, start)

    def _receive(self, connection: _Connection, start: float) -> None:
        try:
            data = connection.socket.recv(_CHUNK)
            if data:
                connection.parser.feed_data(data)
        except BlockingIOError:
            return
        except (OSError, httptools.HttpParserError):
            data = b""
        if not data:
            self._broken(connection)
        elif connection.status:
            self._answered(connection, time.perf_counter() - start)

    def _answered(self, connection: _Connection, now: float) -> None:
        status, due = connection.status, connection.due
        connection.status, connection.due = 0, -1.0
        self._settled += 1
        if status == 200:
            self._outcome.latencies.append(now - due)
        elif status in _REFUSALS:
            self._outcome.refused += 1
        else:
            self._outcome.failed += 1
        if not self._free:
            self._freed = now
        if connection.closing:
            self._replace(connection)
        else:
            self._free.append(connection)

    def _broken(self, connection: _Connection) -> None:
        if connection.busy:
            self._settled += 1
            self._outcome.failed += 1
        self._replace(connection)

    def _replace(self, connection: _Connection) -> None:
        del self._connections[connection.socket.fileno()]
        if connection in self._free:
            self._free.remove(connection)
        connection.socket.close()
        self._open()

    def _open(self) -> None:
        """Connects up to the number wanted; a server that takes no more gets fewer."""
        with contextlib.suppress(OSError):
            while len(self._connections) < self._wanted:
                connection = _Connection(self._port)
                self._connections[connection.socket.fileno()] = connection
                self._epoll.register(connection.socket.fileno(), select.EPOLLIN)
                self._free.append(connection)
