"""The server's Prometheus metrics, right across worker processes.

With several workers each writes its values to files in ``PROMETHEUS_MULTIPROC_DIR`` and any of them can
answer ``/metrics`` for all; prometheus_client looks at that variable when it is imported.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from openclaw.serving.summary import Summary

REST = "rest"

# Seconds. From a tree of a few microseconds to a language model; the inner ones carry p99 alerts.
BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip


_QUANTILES = (0.5, 0.9, 0.99)


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
        self.latency = _Latency()
        registry.register(self.latency)
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

    def traffic(self, model: str) -> Traffic:
        """What counts the requests of a model."""
        return Traffic(self, model)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition in the format that ``accept`` prefers, and its content type; reads files."""
        registry = self._registry
        if self._multiprocess:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # untyped upstream
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type


class Traffic:
    """Counts the requests of one model, with every label found once."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._model = model
        self._requests = metrics.requests
        self._codes: dict[tuple[str, int], Counter] = {}
        self._in_flight = metrics.in_flight.labels(model)
        self._duration = metrics.request_duration.labels(model)
        self._compute = metrics.inference_duration.labels(model)
        self._latency = metrics.latency.of(model)
        self._in_flight.set(0)

    def begin(self) -> None:
        """A request has come."""
        self._in_flight.inc()

    def answered(self, protocol: str, code: int, *, seconds: float) -> None:
        """It was answered, ``seconds`` after its first byte."""
        self._in_flight.dec()
        counter = self._codes.get((protocol, code))
        if counter is None:
            counter = self._codes[protocol, code] = self._requests.labels(self._model, protocol, str(code))
        counter.inc()
        self._duration.observe(seconds)
        self._latency.observe(seconds, now=time.monotonic())

    def computed(self, seconds: float) -> None:
        """The model took so long for one inference."""
        self._compute.observe(seconds)


class _Latency(Collector):
    """Quantiles of the last minute, by model: what alerts compare with a limit."""

    def __init__(self) -> None:
        self._summaries: dict[str, Summary] = {}

    def of(self, model: str) -> Summary:
        return self._summaries.setdefault(model, Summary())

    def collect(self) -> Iterator[Metric]:
        name = "openclaw_inference_latency_seconds"
        metric = Metric(name, "From the request's head to the answer: quantiles of the last minute.", "summary")
        for model, summary in self._summaries.items():
            for share, value in zip(_QUANTILES, summary.quantiles(_QUANTILES, now=time.monotonic()), strict=True):
                metric.add_sample(name, {"model": model, "quantile": str(share)}, value)
            metric.add_sample(f"{name}_sum", {"model": model}, summary.sum)
            metric.add_sample(f"{name}_count", {"model": model}, summary.count)
        yield metric
