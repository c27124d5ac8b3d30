"""One connection: an ``asyncio.Protocol`` on httptools, one request after the other.

Requests of a pipeline are answered in order, each begun when the one before is answered; while one waits nothing
more is read. https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, cast

import httptools

from openclaw.serving.http import refusals
from openclaw.serving.http.bodies import LARGE, Body, Receiver, body_due, hand_back
from openclaw.serving.http.framing import RefusedError, check_head, framing
from openclaw.serving.http.messages import Answer, Request, Soon, refusal

if TYPE_CHECKING:
    from openclaw.serving.http.server import HttpServer

log = logging.getLogger(__name__)

_JOINED = 64 * 1024
"""Bytes up to which joining the pieces of an answer is cheaper than writing them one by one."""
_NEVER = float("inf")
_NOBODY = Request(0.0)


class HttpConnection(asyncio.Protocol):
    """Reads requests, has them answered, and keeps the client within its limits.

    Attributes:
        deadline: the loop's time at which the client is overdue.
    """

    __slots__ = (
        "_began", "_body", "_buffer", "_clogged", "_closing", "_ended", "_fed", "_length", "_limits", "_parser",
        "_reading_head", "_request", "_server", "_task", "_transport", "_unsent", "_waiting", "deadline",
    )  # fmt: skip

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._limits = server.limits
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._request = _NOBODY
        self._fed = 0
        self._began = 0.0
        self._unsent = 0
        self._length: int | None = None
        self._buffer: bytearray | None = None
        self._body: Body | None = None
        self._reading_head = False
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | Soon | None = None
        self._clogged = False
        self._ended = False
        self._closing = False
        self.deadline = _NEVER

    @property
    def busy(self) -> bool:
        """Whether a request was begun, or its answer is still on its way out of this process."""
        if self._transport is None:
            return False
        if self._closing:
            return self._transport.get_write_buffer_size() > 0
        return bool(self._task or self._waiting or self._clogged or self._in_message)

    @property
    def _in_message(self) -> bool:
        return self._reading_head or self._length is not None or self._buffer is not None or self._body is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.deadline = self._server.now + self._limits.keep_alive
        if not self._server.enter(self):
            self._refuse(refusal(503, "too many connections; try again later"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._body = None
        self._server.leave(self)
        if self._task:
            self._task.cancel()
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        begins = not self._fed
        if begins and (request := self._server.heads.request(data)):
            self._arrived(request)
            return
        # The head of a request lies within what was fed since the last one was whole; after the head this counts from
        # the last bytes of the body: chunk extensions and trailers have no other bound.
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # We speak HTTP/1.1 alone. The request was answered as one; what follows it is another protocol's.
            self._end_after_answer()
            return
        except httptools.HttpParserError as error:
            refused = error.__context__
            if isinstance(refused, RefusedError):
                self._refuse(refused.answer)
            else:
                self._refuse(refusals.malformed(error))
            return
        if self._in_message:
            self._goes_on(begins)
            if self._body is not None and self._length is not None and self._transport:
                self._transport.set_protocol(Receiver(self._body, self, self._received))
        elif begins and not self._fed:
            self._server.heads.learn(data, self._request)

    def _goes_on(self, begins: bool) -> None:
        """A request has not come to its end: minds its size and its time."""
        if self._closing:  # the answer before it has ended the connection
            self._body = None
            return
        if not self._fed:
            # It begins behind the end of another one.
            self._fed, begins = 1, True
        if self._fed > self._limits.max_head_bytes:
            too_large = refusals.too_large_head if self._reading_head else refusals.too_much_beside_body
            self._refuse(too_large(self._limits))
        elif self._waiting or self._clogged:
            pass  # nothing more is read for now
        elif begins or not self._reading_head:
            self.deadline = self._due()

    def _due(self) -> float:
        """When the rest of a request must be there."""
        if self._reading_head:
            return self._server.now + self._limits.head_timeout
        return body_due(self._body, self._limits, began=self._began, now=self._server.now)

    def eof_received(self) -> bool:
        """A client that has said everything still gets its answer."""
        self._ended = True
        return bool(self._task or self._waiting or self._clogged)

    def pause_writing(self) -> None:
        self._clogged = True
        self.deadline = self._server.now + self._limits.write_timeout
        if self._transport:
            self._unsent = self._transport.get_write_buffer_size()
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._clogged = False
        self._unsent = 0
        self.deadline = self._server.now + (self._limits.linger if self._closing else self._limits.keep_alive)
        self._go_on()

    def overdue(self) -> None:
        """The deadline has passed: says so where the client can still understand it, and ends."""
        if (self._closing or self._clogged) and self._reads_on():
            self.deadline = self._server.now + self._limits.write_timeout
        elif self._closing or self._clogged:
            self.abort()
        elif self._in_message:
            what = "head" if self._reading_head else "body"
            self._refuse(refusal(408, f"the request's {what} did not arrive in time"))
        else:
            self.close()

    def _reads_on(self) -> bool:
        """Whether answers are on their way, and the client took its share of them since the last look."""
        before = self._unsent
        self._unsent = left = self._transport.get_write_buffer_size() if self._transport else 0
        return left > 0 and (not before or before - left >= self._limits.least_rate * self._limits.write_timeout)

    def close(self) -> None:
        """Ends the connection once everything written has left."""
        self._closing = True
        if self._transport:
            self._transport.close()

    def abort(self) -> None:
        """Ends the connection now."""
        self._closing = True
        if self._transport:
            self._transport.abort()

    # Called by the parser.

    def on_message_begin(self) -> None:
        self._request = Request(perf_counter())
        self._reading_head = True

    def on_url(self, url: bytes) -> None:
        self._request.target += url

    def on_header(self, name: bytes, value: bytes | None) -> None:
        if self._reading_head:  # a trailer could say how the body is to be read, after it was framed
            self._request.headers.append((name.lower(), value or b""))

    def on_headers_complete(self) -> None:
        request = self._request
        self._reading_head = False
        request.method = self._parser.get_method().decode("ascii", "replace")
        if self._fed > self._limits.max_head_bytes or len(request.headers) > self._limits.max_headers:
            check_head(request, self._limits)
        self._fed, self._began = 1, self._server.now
        length, chunked, expects = framing(request)
        if length is not None and length > self._limits.max_body_bytes:
            raise RefusedError(refusals.too_large_body(self._limits, length))
        if length or chunked:
            self._length = length
            self._buffer = bytearray() if chunked else None
            if length is not None and length >= LARGE:
                # Asked now: where the body is received in place, the parser does not see its end.
                request.keep_alive = self._parser.should_keep_alive()
                self._body = Body(request, length, memory=self._server.memory, limits=self._limits)
            if expects and self._transport and not (self._task or self._waiting):
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._fed = 1
        if self._body is not None:
            self._body.put(body)
            return
        if self._buffer is None:
            if len(body) == self._length:
                self._request.body = body
                return
            self._buffer = bytearray()
        self._buffer += body
        if len(self._buffer) > self._limits.max_body_bytes:
            raise RefusedError(refusals.too_large_body(self._limits, None))
        if len(self._buffer) >= LARGE:
            size = 2 * len(self._buffer)
            self._body = Body(self._request, size, memory=self._server.memory, limits=self._limits)
            self._body.put(self._buffer)
            self._buffer = None

    def on_message_complete(self) -> None:
        self._request.keep_alive = self._parser.should_keep_alive()
        self._complete()

    # A large body.

    def _received(self) -> None:
        """Bytes of a large body arrived behind the parser's back."""
        self.deadline = self._due()
        if self._body is not None and self._body.whole:
            # The old one still waits for them.
            self._parser = httptools.HttpRequestParser(self)
            self._stop_receiving()
            self._complete()

    def _stop_receiving(self) -> None:
        if self._body is not None and self._transport is not None:
            hand_back(self._transport, self)

    def _complete(self) -> None:
        """The whole request is there."""
        request = self._request
        if self._body is not None:
            request.body = self._body.done()
            # Its memory goes back when it is answered, not when the next one comes.
            self._request = _NOBODY
        elif self._buffer is not None:
            request.body = self._buffer
        self._buffer = self._length = self._body = None
        self._fed = 0
        if not self._closing:  # else the answer before it has ended the connection
            self._arrived(request)

    def _arrived(self, request: Request) -> None:
        if self._task or self._waiting or self._clogged:
            self._waiting.append(request)
            self._stop_reading()
        else:
            self._handle(request)

    # Answers.

    def _handle(self, request: Request) -> None:
        try:
            answer = self._server.handler(request)
        except Exception:
            answer = _failed(request)
        self._take(request, answer)

    def _take(self, request: Request, answer: Answer | Soon | Awaitable[Answer]) -> None:
        if isinstance(answer, Answer):
            self._write(request, answer)
            return
        self.deadline = _NEVER
        if isinstance(answer, Soon):
            self._task = answer
            answer.deliver = partial(self._delivered, request)
        else:
            self._task = asyncio.ensure_future(self._answer_later(request, answer))

    def _delivered(self, request: Request, answer: Answer | Awaitable[Answer]) -> None:
        self._task = None
        self._take(request, answer)
        self._go_on()

    async def _answer_later(self, request: Request, coming: Awaitable[Answer]) -> None:
        try:
            answer = await coming
        except Exception:
            answer = _failed(request)
        self._task = None
        self._write(request, answer)
        self._go_on()

    def _write(self, request: Request, answer: Answer) -> None:
        transport = self._transport
        if transport is None or self._closing:
            return
        keep_alive = request.keep_alive and not answer.close and not self._server.draining
        head = answer.head(keep_alive=keep_alive)
        parts = () if request.method == "HEAD" else answer.parts
        if len(parts) == 1 and len(parts[0]) <= _JOINED:
            transport.write(head + parts[0])
        else:
            transport.writelines((head, *parts))
        if not keep_alive:
            self._linger()
        elif not self._clogged:
            self.deadline = self._server.now + self._limits.keep_alive

    def _go_on(self) -> None:
        """Handles what waits, then reads on; or ends, where the client has nothing more to say."""
        while self._waiting and not (self._task or self._clogged or self._closing):
            self._handle(self._waiting.popleft())
        if self._task or self._waiting or self._clogged or self._transport is None:
            return
        if self._ended:
            self.close()
        elif not self._closing:
            if self._fed and self._in_message:
                # No time of its own passed while nothing of it was read.
                self._began = self._server.now
                self.deadline = self._due()
            self._transport.resume_reading()

    def _refuse(self, answer: Answer) -> None:
        """Answers what cannot be read to its end, once what came before is answered."""
        self._stop_receiving()
        self._buffer = self._length = self._body = None
        self._reading_head = False
        if self._task or self._waiting or self._clogged:
            self._end_after_answer()
        elif self._transport and not self._closing:
            self._transport.write(b"".join((answer.head(keep_alive=False), *answer.parts)))
            self._linger()

    def _end_after_answer(self) -> None:
        if self._task or self._waiting or self._clogged:
            self._ended = True
            self._stop_reading()
        else:
            self._linger()

    def _stop_reading(self) -> None:
        """Until what came before is answered; what is not read cannot be overdue."""
        if not self._clogged:
            self.deadline = _NEVER
        if self._transport:
            self._transport.pause_reading()

    def _linger(self) -> None:
        """Says that nothing more comes, and listens a little: unread bytes would turn the close into a reset."""
        self._stop_receiving()
        self._body = None
        self._closing = True
        self._waiting.clear()
        transport = self._transport
        if transport is None:
            return
        if not self._clogged:
            self.deadline = self._server.now + self._limits.linger
        if self._ended or transport.is_closing():
            transport.close()
            return
        if transport.can_write_eof():
            transport.write_eof()
        transport.resume_reading()


def _failed(request: Request) -> Answer:
    log.exception("%s %s failed", request.method, request.path)
    return refusal(500, "internal error; the server's log has the reason")
