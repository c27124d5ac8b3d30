"""What is told of a request once it has ended: a span and a line in the access log, where those are wanted."""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple, Protocol

from openclaw.serving.accesslog import Access, AccessLog
from openclaw.serving.tracing import TraceContext, Traced, Tracing


class Version(Protocol):
    """What was asked: one version of a model."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def version(self) -> str:
        """Which version this is."""


class Caller(NamedTuple):
    """What a call says beside its tensors.

    Attributes:
        path: of the method.
        deadline: ``loop.time()`` after which nobody waits for the answer.
        trace: who called.
        request_id: what the caller calls the request in its own log.
        method: of HTTP.
    """

    path: str
    deadline: float | None = None
    trace: TraceContext | None = None
    request_id: str = ""
    method: str = "POST"


class Watcher:
    """Tells of ended requests.

    Args:
        protocol: that they came by.
        tracing: where spans go.
        log: where sampled requests are logged.
    """

    def __init__(self, protocol: str, *, tracing: Tracing | None = None, log: AccessLog | None = None) -> None:
        self._protocol = protocol
        self._tracing = tracing
        self._log = log
        self.wanted = tracing is not None or log is not None

    def tell(
        self, served: Version, caller: Caller, *, code: int, received: float, bytes_in: int, bytes_out: int
    ) -> None:
        """One request ended just now with an HTTP status; ``received`` is perf_counter() when it was there."""
        now, trace = perf_counter(), caller.trace
        if self._tracing:
            ended = Traced(served.name, served.version, self._protocol, code, received=received, answered=now)
            self._tracing.record(ended, trace)
        if self._log and self._log.wants(code):
            self._log.record(
                Access(
                    protocol=self._protocol,
                    method=caller.method,
                    path=caller.path,
                    model=served.name,
                    version=served.version,
                    code=code,
                    duration=now - received,
                    bytes_in=bytes_in,
                    bytes_out=bytes_out,
                    request_id=caller.request_id,
                    trace_id=trace.trace_id if trace else "",
                )
            )
