"""A request, an answer, and what bounds them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote

import orjson

JSON = b"application/json"

_STATUS_LINES = {status.value: f"{status.value} {status.phrase}".encode() for status in HTTPStatus}
_PLAIN_HEAD = b"HTTP/1.1 200 OK\r\nServer: openclaw\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
"""What nearly every answer begins with."""


Content = bytes | bytearray | memoryview
"""A body; a large one is a view of memory that is counted until the last view of it is gone."""


class Request:
    """One request; complete when a handler sees it.

    Attributes:
        method: as sent, in capitals.
        target: the raw request target.
        headers: names in lower case, values as sent; requests may share the list.
        body: the whole body, as it was framed; its content coding is left alone.
        received: ``time.perf_counter()`` when its first byte was parsed.
    """

    __slots__ = ("body", "headers", "keep_alive", "method", "received", "target")

    def __init__(self, received: float) -> None:
        self.method = ""
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: Content = b""
        self.received = received
        self.keep_alive = True

    def again(self, body: bytes, received: float) -> Request:
        """The same request with another body."""
        request = Request(received)
        request.method, request.target, request.headers = self.method, self.target, self.headers
        request.body = body
        return request

    def header(self, name: bytes) -> bytes | None:
        """The first header of that lower-case name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    @property
    def path(self) -> str:
        """The path of the target without its query, decoded; also of a target in absolute form."""
        target = self.target.decode("latin-1")
        if not target.startswith("/") and "://" in target:
            _, _, rest = target.partition("://")
            target = "/" + rest.partition("/")[2]
        return unquote(target.partition("?")[0])


class Answer(NamedTuple):
    """What is sent back.

    Attributes:
        status: the HTTP status.
        parts: the body in pieces; large ones are written from where they lie, so they must not change any more.
        content_type: of the body.
        headers: further ones.
        close: whether the connection ends with this answer.
    """

    status: int
    parts: Sequence[bytes | memoryview] = ()
    content_type: bytes = JSON
    headers: Sequence[tuple[bytes, bytes]] = ()
    close: bool = False

    def head(self, *, keep_alive: bool) -> bytes:
        """Status line and headers, with the empty line that ends them."""
        if (
            keep_alive
            and self.status == 200
            and self.content_type is JSON
            and not self.headers
            and len(self.parts) == 1
        ):
            return _PLAIN_HEAD % len(self.parts[0])
        length = sum(map(_size, self.parts))
        more = b"".join([b"%b: %b\r\n" % header for header in self.headers])
        end = b"" if keep_alive else b"Connection: close\r\n"
        return b"HTTP/1.1 %b\r\nServer: openclaw\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n" % (
            _STATUS_LINES.get(self.status, b"%d" % self.status), self.content_type, length, more, end,
        )  # fmt: skip


class Soon:
    """An answer that comes in this turn of the event loop, without what a future and a task cost.

    Attributes:
        deliver: whom the answer goes to, once; set by whoever is given this.
    """

    __slots__ = ("deliver",)

    def __init__(self) -> None:
        self.deliver: Callable[[Answer | Awaitable[Answer]], None] | None = None

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        self.deliver = _to_nobody


def _to_nobody(answer: Answer | Awaitable[Answer]) -> None:
    if asyncio.iscoroutine(answer):
        answer.close()


def refusal(status: int, sentence: str, *, close: bool = False, retry_after: float | None = None) -> Answer:
    """An answer with the protocol's error document; ``retry_after``: seconds after which it may be otherwise."""
    headers = () if retry_after is None else ((b"Retry-After", b"%d" % math.ceil(retry_after)),)
    return Answer(status, (orjson.dumps({"error": sentence}),), headers=headers, close=close)


Handler = Callable[[Request], Answer | Soon | Awaitable[Answer]]
"""Answers a complete request: at once, soon, or later. Called on the event loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client can take. Times are seconds, sizes bytes."""

    max_head_bytes: int = 64 * 1024
    max_headers: int = 128
    max_body_bytes: int = 64 * 1024**2
    max_connections: int = 10_000
    head_timeout: float = 10.0
    body_timeout: float = 30.0
    least_rate: float = 64 * 1024
    """Bytes a second: of a large body, on average and after ``body_timeout``, because what it will need is kept for it;
    and of an answer that its client is behind with."""
    keep_alive: float = 75.0
    write_timeout: float = 60.0
    """After which it is looked whether a client that is behind reads at ``least_rate``, again and again."""
    linger: float = 2.0
    """How long a refused client is listened to: closing at once could take the refusal away from it (RFC 9112, 9.6)."""


def _size(part: bytes | memoryview) -> int:
    return part.nbytes if isinstance(part, memoryview) else len(part)
