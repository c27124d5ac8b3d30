"""What the operator tells Prometheus about itself."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Telemetry:
    """The operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "openclaw_operator_reconciles_total",
            "Reconciles by result: quiet, changed (children), deferred (by a burst), held (progress), told, "
            "refused, retried.",
            ["result"],
            registry=self.registry,
        )
        self.duration = Histogram(
            "openclaw_operator_reconcile_duration_seconds",
            "Time of one reconcile, its API requests included.",
            registry=self.registry,
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30),
        )
        self.requests = Counter(
            "openclaw_operator_api_requests_total",
            "Requests to the API server by verb, kind and status; watches not counted.",
            ["verb", "kind", "code"],
            registry=self.registry,
        )
        self.questions = Counter(
            "openclaw_operator_pod_questions_total",
            "Questions to pods, in which tier of memory they have their model, by result: answered, unreachable.",
            ["result"],
            registry=self.registry,
        )
        self.leading = Gauge(
            "openclaw_operator_leader", "1 while this replica holds the Lease.", registry=self.registry
        )
        self._watch_age = Gauge(
            "openclaw_operator_watch_age_seconds",
            "Time since the last event of a kind; a quiet cluster has none.",
            ["kind"],
            registry=self.registry,
        )

    def observe_queue(self, *, depth: Callable[[], float], overdue: Callable[[], float]) -> None:
        """Reads the queue's state whenever it is scraped."""
        Gauge("openclaw_operator_queue_depth", "Services that are due.", registry=self.registry).set_function(depth)
        Gauge(
            "openclaw_operator_queue_overdue_seconds",
            "How long work has been hanging, or standing still with services due.",
            registry=self.registry,
        ).set_function(overdue)

    def observe_watch(self, kind: str, *, age: Callable[[], float]) -> None:
        """Reads the age of a watch whenever it is scraped."""
        self._watch_age.labels(kind).set_function(age)
