"""What a request's head may be, and how it says where its body ends (RFC 9112, 6)."""

from __future__ import annotations

from openclaw.serving.http import refusals
from openclaw.serving.http.messages import Answer, Limits, Request


class RefusedError(Exception):
    """Ends the parsing of a message that is not wanted; ``answer`` says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def check_head(request: Request, limits: Limits) -> None:
    """Raises RefusedError where its head is larger than is allowed."""
    size = len(request.target) + sum(len(name) + len(value) for name, value in request.headers)
    if size > limits.max_head_bytes or len(request.headers) > limits.max_headers:
        raise RefusedError(refusals.too_large_head(limits))


def framing(request: Request) -> tuple[int | None, bool, bool]:
    """Its body's length, if it was sent; whether it comes in chunks; whether the client waits to be asked for it.

    Raises:
        RefusedError: its framing is not understood.
    """
    length, chunked, expects = None, False, False
    for name, value in request.headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            chunked = True
            if value.strip().lower() != b"chunked":
                raise RefusedError(refusals.unknown_coding(value))
        elif name == b"expect":
            expects = value.strip().lower() == b"100-continue"
    return length, chunked, expects
