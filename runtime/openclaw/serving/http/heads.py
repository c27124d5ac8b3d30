"""Heads of requests that were read before: a client sends the same one again and again.

Reading a head costs more than all else that HTTP is about. What its bytes mean does not change, so a request whose head
was seen is told from its bytes alone, and the parser never sees it.
"""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple

from openclaw.serving.http.bodies import LARGE
from openclaw.serving.http.messages import Request

MAX_BYTES = 1024
"""Of a head that is remembered."""
MAX_HEADS = 512

_END = b"\r\n\r\n"


class _Known(NamedTuple):
    request: Request
    length: int


class Heads:
    """Remembers the heads of all connections, MAX_HEADS at most."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}

    def request(self, data: bytes) -> Request | None:
        """The request that ``data`` is, whole and alone; None where the parser is needed to tell.

        Args:
            data: what came where a request may begin.
        """
        end = data.find(_END, 0, MAX_BYTES) + len(_END)
        known = self._known.get(data[:end])
        if known is None or len(data) != end + known.length:
            return None
        return known.request.again(data[end:], perf_counter())

    def learn(self, data: bytes, request: Request) -> None:
        """Remembers the head of a request that the parser read.

        Args:
            data: that the parser was given where a request may begin, and that it read to the end.
            request: the last that it found therein.
        """
        end = data.find(_END, 0, MAX_BYTES) + len(_END)
        length = len(data) - end
        # Anything but one request with a body as long as it says leaves more bytes than these. A large one asks for
        # memory first.
        if end < len(_END) or length != len(request.body) or not request.keep_alive or length >= LARGE:
            return
        if len(self._known) >= MAX_HEADS:
            self._known.clear()
        self._known[data[:end]] = _Known(request.again(b"", 0.0), length)
