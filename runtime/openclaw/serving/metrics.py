"""The server's Prometheus metrics, right across worker processes.

With several workers each writes its values to files in ``PROMETHEUS_MULTIPROC_DIR`` and any of them can
answer ``/metrics`` for all; prometheus_client looks at that variable when it is imported.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

REST = "rest"

# Seconds. From a tree of a few microseconds to a language model; the inner ones carry p99 alerts.
BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip


class Metrics:
    """All metrics of one process."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self._multiprocess = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        if not self._multiprocess:
            ProcessCollector(registry=registry)
            PlatformCollector(registry=registry)
        self.requests = Counter(
            "openclaw_requests",
            "Inference requests answered, by HTTP status.",
            ["model", "protocol", "code"],
            registry=registry,
        )
        self.request_duration = Histogram(
            "openclaw_request_duration_seconds",
            "From the request's head to the answer, waiting included.",
            ["model"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.inference_duration = Histogram(
            "openclaw_inference_duration_seconds",
            "Time in the model alone.",
            ["model"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "openclaw_requests_in_flight",
            "Inference requests being answered now.",
            ["model"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.load_seconds = Gauge(
            "openclaw_model_load_seconds",
            "How long the download, the load and the warm-up took.",
            ["model"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.ready = Gauge(
            "openclaw_model_ready",
            "1 when the model answers requests.",
            ["model"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.load_failures = Counter(
            "openclaw_model_load_failures",
            "Times the model could not be brought up.",
            ["model", "reason"],
            registry=registry,
        )

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition in the format that ``accept`` prefers, and its content type; reads files."""
        registry = self._registry
        if self._multiprocess:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # untyped upstream
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type
