"""W3C trace context, and a span of each request for those who collect them.

Parsing follows https://www.w3.org/TR/trace-context/ (sections 3.2 and 3.3). Spans exist only where
``OTEL_EXPORTER_OTLP_ENDPOINT`` (or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``) is set and OpenTelemetry is
installed; otherwise nothing of it is imported. A request's span is made when it was answered, from the times that
were taken anyway, so the path of a request carries no span objects.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
MAX_STATE_MEMBERS = 32
MAX_STATE_CHARACTERS = 4096
"""Longer states are dropped; the standard asks for at least 512."""

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_MEMBER = re.compile(
    r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Who called: hexadecimal ids in lower case, flags (bit 0: sampled), and the vendors' state as a header."""

    trace_id: str
    parent_id: str
    flags: int = 0
    state: str = ""


def parse(traceparent: bytes | None, tracestates: Sequence[bytes] = ()) -> TraceContext | None:
    """The context of a request's headers; None where there is none or it is not valid (never an error).

    Args:
        traceparent: the header's value; a request with several has none.
        tracestates: the values of all ``tracestate`` headers, in order. A state that is not valid is dropped alone.
    """
    if traceparent is None:
        return None
    match = _PARENT.fullmatch(traceparent.decode("latin-1").strip(" \t"))
    if match is None:
        return None
    version, trace_id, parent_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(parent_id, 16):
        return None
    return TraceContext(trace_id, parent_id, int(flags, 16), _state(tracestates))


def _state(values: Sequence[bytes]) -> str:
    text = ",".join(value.decode("latin-1") for value in values)
    if len(text) > MAX_STATE_CHARACTERS:
        return ""
    members = [member for part in text.split(",") if (member := part.strip(" \t"))]
    keys = {member.partition("=")[0] for member in members}
    valid = len(members) <= MAX_STATE_MEMBERS and len(keys) == len(members) and all(map(_MEMBER.fullmatch, members))
    return ",".join(members) if valid else ""


@dataclass(frozen=True, slots=True)
class Traced:
    """One answered request; times are perf_counter() seconds. ``code`` is an HTTP status, for gRPC too."""

    model: str
    version: str
    protocol: str
    code: int
    received: float
    answered: float


class Tracing:
    """Turns answered requests into spans; make it after a fork, since the exporter has a thread.

    Args:
        processor: takes the finished spans; the sampler and the resource are what the ``OTEL_*`` variables say.
    """

    def __init__(self, processor: SpanProcessor) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

        # The caller of shutdown decides when the last spans leave, not the interpreter's exit.
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("openclaw")
        self._trace = trace
        self._make = (NonRecordingSpan, SpanContext, TraceFlags, TraceState)

    def record(self, request: Traced, parent: TraceContext | None) -> None:
        """Makes the span ``request`` and hands it to the exporter; waits for nothing."""
        # Anew each time: the wall clock is corrected while perf_counter() runs on.
        offset = time.time_ns() - time.perf_counter_ns()
        context = None if parent is None else self._context(parent)
        span = self._tracer.start_span(
            "request",
            context,
            kind=self._trace.SpanKind.SERVER,
            start_time=offset + _ns(request.received),
            attributes={
                "openclaw.model": request.model,
                "openclaw.version": request.version,
                "openclaw.protocol": request.protocol,
                "http.response.status_code": request.code,
            },
        )
        if request.code >= 500:
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR))
        span.end(offset + _ns(request.answered))

    def close(self) -> None:
        """Exports what waits; blocks, for as long as the exporter's timeout allows."""
        self._provider.shutdown()

    def _context(self, parent: TraceContext) -> Context:
        remote, context, flags, state = self._make
        caller = context(
            int(parent.trace_id, 16),
            int(parent.parent_id, 16),
            is_remote=True,
            trace_flags=flags(parent.flags & 1),
            trace_state=state.from_header([parent.state]) if parent.state else state(),
        )
        return self._trace.set_span_in_context(remote(caller))


def from_environment(environment: Mapping[str, str]) -> Tracing | None:
    """Tracing as the environment asks for it; None, with a warning where it was asked for but is not installed."""
    if not any(environment.get(name) for name in ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning("no traces: %s; OpenTelemetry's SDK and its OTLP/HTTP exporter are needed", error)
        return None
    return Tracing(BatchSpanProcessor(OTLPSpanExporter()))


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
