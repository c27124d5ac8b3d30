"""The shared counters as Prometheus samples: any process answers for all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from openclaw.devices.memory import resident_bytes
from openclaw.serving import families, summary
from openclaw.serving.counters import SharedCounters, Slot
from openclaw.serving.families import QUANTILES, Family
from openclaw.serving.recording import WINDOW_SECONDS

Labels = tuple[str, ...]
Values = NDArray[np.float64]
Series = dict[Labels, list[Values]]
"""What each process counted, by label values."""


class Exposition:
    """Answers scrapes; reads only, so any thread may ask."""

    def __init__(self, counters: SharedCounters, window: float = WINDOW_SECONDS) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(SharedCollector(counters, window))
        if counters.slots == 1:
            # These describe the process that answers, which says nothing where several do.
            ProcessCollector(registry=self._registry)
            PlatformCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition in the format that ``accept`` prefers, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class SharedCollector(Collector):
    """Adds up the slots of all processes at each scrape."""

    def __init__(self, counters: SharedCounters, window: float = WINDOW_SECONDS) -> None:
        self._counters = counters
        self._window = window

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering must not read the counters."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The families, those without any series too."""
        slots = list(self._counters)
        series = _read(slots)
        _add_rss(series[families.MEMORY.name], slots)
        for family in families.FAMILIES.values():
            yield from self._metrics(family, series)

    def _metrics(self, family: Family, series: dict[str, Series]) -> Iterator[Metric]:
        rows = series[family.name]
        if family.kind == "histogram":
            yield _histogram(family, rows)
        elif family.kind == "window":
            yield self._latency(family, rows, series[families.REQUEST_DURATION.name])
        elif family.kind == "pauses":
            yield from _pauses(family, rows)
        else:
            yield _plain(family, rows)

    def _latency(self, family: Family, rows: Series, durations: Series) -> Metric:
        """Quantiles from the windows; sum and count since the start are those of the durations' histogram."""
        metric = Metric(family.name, family.documentation, "summary")
        totals: dict[str, Values] = defaultdict(lambda: np.zeros(families.REQUEST_DURATION.cells))
        for (model, _), parts in durations.items():
            totals[model] += sum(parts)
        now = perf_counter()
        for (model,), windows in rows.items():
            counts = summary.merged(windows, now=now, seconds=self._window)
            for quantile, value in zip(QUANTILES, summary.quantiles(counts, QUANTILES), strict=True):
                metric.add_sample(family.name, {"model": model, "quantile": str(quantile)}, value)
            _sum_and_count(metric, {"model": model}, count=float(totals[model][:-1].sum()), total=totals[model][-1])
        return metric


def _read(slots: list[Slot]) -> dict[str, Series]:
    series: dict[str, Series] = defaultdict(lambda: defaultdict(list))
    for slot in slots:
        for key, values in slot.blocks():
            family, labels = families.parse(key)
            if slot.pid or not family.is_gauge:
                # A copy, so that a histogram's buckets and count are of one moment.
                series[family.name][labels].append(values.copy())
    return series


def _add_rss(rows: Series, slots: list[Slot]) -> None:
    sizes = [size for slot in slots if slot.pid and (size := resident_bytes(slot.pid)) is not None]
    if sizes:
        rows["rss", "", ""] = [np.array([float(sum(sizes))])]


def _plain(family: Family, rows: Series) -> Metric:
    make = GaugeMetricFamily if family.is_gauge else CounterMetricFamily
    metric: Metric = make(family.name, family.documentation, labels=family.labels)
    for labels, parts in rows.items():
        combine = max if family.kind == "max" else sum
        value = combine(float(part[0]) for part in parts)
        name = family.name if family.is_gauge else f"{family.name}_total"
        metric.add_sample(name, dict(zip(family.labels, labels, strict=True)), value)
    return metric


def _histogram(family: Family, rows: Series) -> Metric:
    metric = HistogramMetricFamily(family.name, family.documentation, labels=family.labels)
    bounds = [*map(str, family.buckets), "+Inf"]
    for labels, parts in rows.items():
        values = np.sum(parts, axis=0)
        buckets = list(zip(bounds, values[:-1].cumsum().tolist(), strict=True))
        metric.add_metric(list(labels), buckets, sum_value=float(values[-1]))
    return metric


def _pauses(family: Family, rows: Series) -> Iterator[Metric]:
    metric = Metric(family.name, family.documentation, "summary")
    longest = GaugeMetricFamily(families.GC_PAUSE_MAX, "The longest of them.", labels=family.labels)
    for (generation,), parts in rows.items():
        count, total = (float(sum(part[i] for part in parts)) for i in range(2))
        _sum_and_count(metric, {"generation": generation}, count=count, total=total)
        longest.add_metric([generation], float(max(part[2] for part in parts)))
    yield metric
    yield longest


def _sum_and_count(metric: Metric, labels: dict[str, str], *, count: float, total: float) -> None:
    metric.add_sample(f"{metric.name}_count", labels, count)
    metric.add_sample(f"{metric.name}_sum", labels, float(total))
