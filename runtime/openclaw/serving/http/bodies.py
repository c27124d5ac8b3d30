"""Large bodies: received straight into memory that was granted before the first byte of them is read.

Bodies below LARGE arrive through the parser, like heads, and are not worth counting. For a larger one whose length is
known, the connection steps aside: the system writes what arrives into the body's place, and nothing is copied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from openclaw.errors import OverBudget
from openclaw.memory.accounting import Account
from openclaw.memory.pool.objects import Buffer, ObjectPool
from openclaw.serving.http import refusals
from openclaw.serving.http.framing import RefusedError
from openclaw.serving.http.messages import Answer, Limits, Request, refusal

LARGE = 64 * 1024
"""Bytes of a body from which on it is counted, and received in place."""


class Memory(Protocol):
    """Grants the memory that bodies lie in."""

    def take(self, request: Request, size: int) -> Buffer:
        """Memory for so many bytes of the request's body. Raises OverBudget."""

    def refuse(self, request: Request, error: OverBudget) -> Answer:
        """The answer to a request whose body there is no memory for."""


class Unbounded:
    """As much memory as is asked for."""

    def __init__(self) -> None:
        self._pool = ObjectPool(Account())

    def take(self, request: Request, size: int) -> Buffer:
        """Memory for so many bytes."""
        return self._pool.take(size)

    def refuse(self, request: Request, error: OverBudget) -> Answer:
        """An answer that says why."""
        return refusal(error.status, str(error), retry_after=error.retry_after)


class Body:
    """A large body, as far as it is there.

    Args:
        request: that it belongs to.
        size: bytes that are expected; more make it grow.
        memory: grants what it lies in.
        limits: how large it may become.

    Attributes:
        filled: bytes that are there.

    Raises:
        RefusedError: there is no memory for so many bytes.
    """

    __slots__ = ("_buffer", "_limits", "_memory", "_request", "filled")

    def __init__(self, request: Request, size: int, *, memory: Memory, limits: Limits) -> None:
        self._request = request
        self._memory = memory
        self._limits = limits
        self._buffer = self._take(size)
        self.filled = 0

    @property
    def rest(self) -> memoryview:
        """Where the bytes that are missing go."""
        return self._buffer.view[self.filled :]

    @property
    def whole(self) -> bool:
        """Whether as much is there as was expected."""
        return self.filled == self._buffer.size

    def put(self, data: bytes | bytearray | memoryview) -> None:
        """Appends bytes; raises RefusedError where they are too many, or need more memory than is granted."""
        end = self.filled + len(data)
        if end > self._limits.max_body_bytes:
            raise RefusedError(refusals.too_large_body(self._limits, None))
        if end > self._buffer.size:
            larger = self._take(max(end, 2 * self._buffer.size))
            larger.view[: self.filled] = self._buffer.view[: self.filled]
            self._buffer = larger
        self._buffer.view[self.filled : end] = data
        self.filled = end

    def done(self) -> memoryview:
        """The bytes that are there; they keep their memory for as long as anything is made of them."""
        return self._buffer.view[: self.filled]

    def _take(self, size: int) -> Buffer:
        try:
            return self._memory.take(self._request, size)
        except OverBudget as error:
            raise RefusedError(self._memory.refuse(self._request, error)) from error


def body_due(body: Body | None, limits: Limits, *, began: float, now: float) -> float:
    """The loop's time by which the rest of a body must be there: what drips may not put it off for ever.

    Args:
        body: a large one; None: a small one.
        limits: what one client can take.
        began: when its head was whole.
        now: when bytes of it came.
    """
    due = began + limits.body_timeout
    return due if body is None else min(now + limits.body_timeout, due + body.filled / limits.least_rate)


class Receiver(asyncio.BufferedProtocol):
    """Stands in for a connection until a body is whole.

    Args:
        body: to be filled.
        connection: is told of everything but data.
        moved: is called when bytes arrived.
    """

    __slots__ = ("_body", "_connection", "_moved")

    def __init__(self, body: Body, connection: asyncio.Protocol, moved: Callable[[], None]) -> None:
        self._body: Body | None = body
        self._connection = connection
        self._moved = moved

    def end(self) -> None:
        """Lets go of the body: a transport may keep this for longer than it uses it."""
        self._body = None

    def get_buffer(self, sizehint: int) -> memoryview:
        """What is missing: no byte of the next request is read."""
        assert self._body is not None, "a receiver that has ended is asked for memory"
        return self._body.rest

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes of the body are there."""
        if self._body is not None:
            self._body.filled += nbytes
            self._moved()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._connection.connection_lost(exc)

    def eof_received(self) -> bool | None:
        """The client says no more."""
        return self._connection.eof_received()

    def pause_writing(self) -> None:
        """An answer before this request does not leave fast enough."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._connection.resume_writing()


def hand_back(transport: asyncio.Transport, connection: asyncio.Protocol) -> None:
    """Has a connection receive by itself again, where a receiver stands in for it."""
    if isinstance(receiver := transport.get_protocol(), Receiver):
        transport.set_protocol(connection)
        receiver.end()
