"""The metric families of the serving path: names, help, labels, and how many numbers a series takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import orjson

from openclaw.serving import summary

# Seconds. From a tree of a few microseconds to a language model; the inner ones carry p99 alerts.
SECONDS_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
"""Rows."""

QUANTILES = (0.5, 0.9, 0.99)

Kind = Literal["counter", "sum", "max", "histogram", "pauses", "window"]


@dataclass(frozen=True, slots=True)
class Family:
    """One family.

    Attributes:
        kind: ``counter``; a gauge that is the ``sum`` or the ``max`` over processes; ``histogram``: one count a
            bucket, one above them, and the sum; ``pauses``: count, sum and longest; ``window``: quantiles of late.
    """

    name: str
    kind: Kind
    documentation: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()

    @property
    def is_gauge(self) -> bool:
        """Whether its numbers end with the process."""
        return self.kind in {"sum", "max"}

    @property
    def cells(self) -> int:
        """Numbers of one series."""
        return {"histogram": len(self.buckets) + 2, "pauses": 3, "window": summary.CELLS}.get(self.kind, 1)

    def key(self, *labels: str) -> bytes:
        """How a series is found among the shared counters."""
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {labels}")
        return orjson.dumps([self.name, *labels])


REQUESTS = Family(
    "openclaw_requests",
    "counter",
    "Inference requests answered, by status.",
    ("model", "version", "protocol", "code"),
)
REQUEST_DURATION = Family(
    "openclaw_request_duration_seconds",
    "histogram",
    "From the request's first byte to the answer, waiting included; without what was shed.",
    ("model", "protocol"),
    SECONDS_BUCKETS,
)
LATENCY = Family(
    "openclaw_inference_latency_seconds",
    "window",
    "From the request's first byte to the answer: quantiles of the last minute, within 1 %.",
    ("model",),
)
INFERENCE_DURATION = Family(
    "openclaw_inference_duration_seconds",
    "histogram",
    "Time in the model alone, once for each run of a batch.",
    ("model",),
    SECONDS_BUCKETS,
)
QUEUE = Family(
    "openclaw_queue_seconds",
    "histogram",
    "How long requests waited for the model; those that ran at once are not counted.",
    ("model",),
    SECONDS_BUCKETS,
)
BATCH_SIZE = Family("openclaw_batch_size", "histogram", "Rows in each run of the model.", ("model",), BATCH_BUCKETS)
IN_FLIGHT = Family("openclaw_requests_in_flight", "sum", "Inference requests being answered now.", ("model",))
SHED = Family("openclaw_requests_shed", "counter", "Requests refused because of load.", ("model", "reason"))
LOAD_SECONDS = Family(
    "openclaw_model_load_seconds", "max", "How long the download, the load and the warm-up took.", ("model",)
)
READY = Family("openclaw_model_ready", "max", "1 when the model answers requests.", ("model",))
LOAD_FAILURES = Family(
    "openclaw_model_load_failures", "counter", "Times the model could not be brought up.", ("model", "reason")
)
TIER = Family(
    "openclaw_model_tier",
    "max",
    "1 for the tier that the model's weights are in: packed in memory, mapped from disk, or evicted.",
    ("model", "tier"),
)
EVICTIONS = Family("openclaw_model_evictions", "counter", "Times the model gave its memory to another.", ("model",))
RELOAD = Family(
    "openclaw_model_reload_seconds",
    "histogram",
    "How long requests to an evicted model waited for it to be opened again.",
    ("model",),
    SECONDS_BUCKETS,
)
MEMORY = Family(
    "openclaw_memory_bytes",
    "sum",
    "Memory by pool, over all processes; rss counts pages that they share once for each.",
    ("pool", "model", "state"),
)
MEMORY_BUDGET = Family(
    "openclaw_memory_budget_bytes", "max", "What all processes together may take of all pools but rss.", ()
)
GC_PAUSE = Family(
    "openclaw_gc_pause_seconds", "pauses", "Pauses of Python's cyclic garbage collector.", ("generation",)
)
GC_PAUSE_MAX = "openclaw_gc_pause_max_seconds"

FAMILIES = {
    family.name: family
    for family in (
        REQUESTS, REQUEST_DURATION, LATENCY, INFERENCE_DURATION, QUEUE, BATCH_SIZE, IN_FLIGHT, SHED, LOAD_SECONDS,
        READY, LOAD_FAILURES, TIER, EVICTIONS, RELOAD, MEMORY, MEMORY_BUDGET, GC_PAUSE,
    )
}  # fmt: skip


def parse(key: bytes) -> tuple[Family, tuple[str, ...]]:
    """The family and the label values of a key."""
    name, *labels = orjson.loads(key)
    return FAMILIES[name], tuple(labels)
