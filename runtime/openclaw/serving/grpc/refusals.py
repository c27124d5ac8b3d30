"""Errors as gRPC tells them: a status, a sentence, and when to try again.

The statuses are those of https://grpc.github.io/grpc/core/md_doc_statuscodes.html that a client library retries,
or not, as it does the HTTP status.
"""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import grpc

from openclaw.errors import RequestError

log = logging.getLogger(__name__)

CANCELLED = 499
"""The HTTP status recorded for a request whose client gave up, as proxies do; no client sees it."""

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class Refusal(NamedTuple):
    """How a call ends that was not answered; ``status`` is the HTTP status of the same."""

    code: grpc.StatusCode
    sentence: str
    trailers: tuple[tuple[str, str], ...]
    status: int


def refusal(error: Exception) -> Refusal:
    """What the client is told of an error; what it is not told is logged."""
    if not isinstance(error, RequestError):
        log.error("a gRPC call failed", exc_info=error)
        return Refusal(grpc.StatusCode.INTERNAL, "internal error; the server's log has the reason", (), 500)
    other = grpc.StatusCode.INTERNAL if error.status >= 500 else grpc.StatusCode.INVALID_ARGUMENT
    code = _CODES.get(error.status, other)
    return Refusal(code, str(error), _trailers(getattr(error, "retry_after", None)), error.status)


def _trailers(retry_after: float | None) -> tuple[tuple[str, str], ...]:
    if retry_after is None:
        return ()
    # The second is what gRPC's own retries obey (https://github.com/grpc/proposal/blob/master/A6-client-retries.md).
    return (
        ("retry-after", str(max(1, math.ceil(retry_after)))),
        ("grpc-retry-pushback-ms", str(max(1, math.ceil(retry_after * 1000)))),
    )
