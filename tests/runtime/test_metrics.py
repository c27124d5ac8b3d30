"""The serving path's metrics: one process, several, and one that is replaced."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from openclaw.errors import OverBudget
from openclaw.memory.accounting import Account, Level, State
from openclaw.serving import families
from openclaw.serving.counters import SharedCounters
from openclaw.serving.exposition import Exposition
from openclaw.serving.recording import MAX_PENDING, ServingMetrics
from openclaw.serving.telemetry import Telemetry

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(counters: SharedCounters) -> Samples:
    text = Exposition(counters).render("")[0].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for metric in parse_text(text)
        for sample in metric.samples
    }


def value(counters: SharedCounters, name: str, **labels: str) -> float:
    return samples(counters)[name, frozenset(labels.items())]


def answer(metrics: ServingMetrics, code: int | str = 200, *, seconds: float = 0.01, times: int = 1) -> None:
    requests = metrics.requests("digits", "1", "rest")
    for _ in range(times):
        requests.begin()
        requests.answered(code, time.perf_counter() - seconds)
    metrics.publish()


def in_child(work: Callable[[], None]) -> int:
    """Runs ``work`` in a forked process, which is killed afterwards; its process id."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os.write(writer, b".")
        finally:
            os.close(writer)
            os.kill(os.getpid(), signal.SIGKILL)
    os.close(writer)
    assert os.read(reader, 1) == b"."
    os.close(reader)
    os.waitpid(pid, 0)
    return pid


def test_requests_are_counted_by_model_version_protocol_and_code() -> None:
    counters = SharedCounters()
    metrics = ServingMetrics(counters)
    answer(metrics, 200, times=3)
    answer(metrics, 400)
    labels = {"model": "digits", "version": "1", "protocol": "rest"}
    assert value(counters, "openclaw_requests_total", **labels, code="200") == 3
    assert value(counters, "openclaw_requests_total", **labels, code="400") == 1
    assert metrics.activity() == (4, 0)


@given(st.lists(st.floats(0.0, 100.0), max_size=40))
def test_a_histogram_counts_what_is_at_most_each_bound(seconds: list[float]) -> None:
    counters = SharedCounters()
    metrics = ServingMetrics(counters)
    for one in seconds:
        metrics.model("m").queued(one)
    metrics.model("m")
    metrics.publish()
    found = samples(counters)
    for bound in families.SECONDS_BUCKETS:
        key = "openclaw_queue_seconds_bucket", frozenset({"model": "m", "le": str(bound)}.items())
        assert found[key] == sum(one <= bound for one in seconds)
    assert value(counters, "openclaw_queue_seconds_count", model="m") == len(seconds)
    assert value(counters, "openclaw_queue_seconds_sum", model="m") == pytest.approx(sum(seconds))


def test_the_latency_summary_carries_the_quantiles_that_alerts_name() -> None:
    counters = SharedCounters()
    metrics = ServingMetrics(counters)
    answer(metrics, seconds=0.1, times=98)
    answer(metrics, seconds=2.0, times=2)
    name = "openclaw_inference_latency_seconds"
    assert value(counters, name, model="digits", quantile="0.5") == pytest.approx(0.1, rel=0.05)
    assert value(counters, name, model="digits", quantile="0.99") == pytest.approx(2.0, rel=0.05)
    assert value(counters, f"{name}_count", model="digits") == 100
    assert value(counters, f"{name}_sum", model="digits") == pytest.approx(98 * 0.1 + 2 * 2.0, rel=0.05)


def test_what_was_shed_is_counted_but_is_no_latency() -> None:
    counters = SharedCounters()
    metrics = ServingMetrics(counters)
    requests = metrics.requests("digits", "1", "grpc")
    requests.begin()
    requests.refused("RESOURCE_EXHAUSTED")
    metrics.model("digits").shed("queue_full")
    metrics.publish()
    assert value(counters, "openclaw_requests_shed_total", model="digits", reason="queue_full") == 1
    labels = {"model": "digits", "version": "1", "protocol": "grpc", "code": "RESOURCE_EXHAUSTED"}
    assert value(counters, "openclaw_requests_total", **labels) == 1
    assert value(counters, "openclaw_requests_in_flight", model="digits") == 0
    assert value(counters, "openclaw_inference_latency_seconds_count", model="digits") == 0


def test_what_concerns_the_model_and_the_process_is_there() -> None:
    counters = SharedCounters()
    metrics = ServingMetrics(counters)
    model = metrics.model("digits")
    model.ran(3, 0.02)
    model.loaded(1.5)
    model.ready(True)
    model.load_failed("ModelInvalid")
    account = Account(2**20)
    metrics.memory(account, lambda: None)
    claim = account.take(4096, level=Level.OBJECTS, model="digits")
    for seconds in (0.25, 0.5, 0.125):
        metrics.gc_paused(2, seconds)
    metrics.publish()
    assert value(counters, "openclaw_batch_size_bucket", model="digits", le="4.0") == 1
    assert value(counters, "openclaw_batch_size_bucket", model="digits", le="2.0") == 0
    assert value(counters, "openclaw_inference_duration_seconds_count", model="digits") == 1
    assert value(counters, "openclaw_model_load_seconds", model="digits") == 1.5
    assert value(counters, "openclaw_model_ready", model="digits") == 1
    assert value(counters, "openclaw_model_load_failures_total", model="digits", reason="ModelInvalid") == 1
    assert value(counters, "openclaw_memory_bytes", pool="objects", model="digits", state="used") == 4096
    assert value(counters, "openclaw_memory_budget_bytes") == 2**20
    assert value(counters, "openclaw_memory_bytes", pool="rss", model="", state="") > 2**20
    claim.turn(State.KEPT, model="")
    metrics.publish()
    assert value(counters, "openclaw_memory_bytes", pool="objects", model="digits", state="used") == 0
    assert value(counters, "openclaw_memory_bytes", pool="objects", model="", state="kept") == 4096
    assert value(counters, "openclaw_gc_pause_seconds_sum", generation="2") == 0.875
    assert value(counters, "openclaw_gc_pause_seconds_count", generation="2") == 3
    assert value(counters, "openclaw_gc_pause_max_seconds", generation="2") == 0.5


def test_threads_record_runs_while_others_publish_and_none_is_lost() -> None:
    counters = SharedCounters()
    metrics = ServingMetrics(counters)
    model = metrics.model("digits")

    def record() -> None:
        for _ in range(5000):
            model.ran(2, 0.001)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        metrics.publish()
    metrics.publish()
    assert value(counters, "openclaw_inference_duration_seconds_count", model="digits") == 20_000
    assert value(counters, "openclaw_batch_size_sum", model="digits") == 40_000


def test_what_waits_to_be_published_is_bounded() -> None:
    metrics = ServingMetrics(SharedCounters())
    requests = metrics.requests("digits", "1", "rest")
    for _ in range(MAX_PENDING + 1):
        requests.begin()
        requests.answered(200, time.perf_counter())
    at = metrics.block(families.REQUEST_DURATION, "digits", "rest")
    assert sum(metrics.cells[at : at + len(families.SECONDS_BUCKETS) + 1]) == MAX_PENDING + 1


def test_openmetrics_is_answered_to_those_who_ask_for_it() -> None:
    counters = SharedCounters()
    answer(ServingMetrics(counters))
    body, content_type = Exposition(counters).render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    metrics = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]  # untyped upstream
    names = {metric.name: metric.type for metric in metrics}
    assert names["openclaw_requests"] == "counter"
    assert names["openclaw_inference_latency_seconds"] == "summary"
    assert "process_resident_memory" in body.decode()


def test_a_scrape_adds_up_all_processes_and_keeps_the_counts_of_one_that_was_killed() -> None:
    counters = SharedCounters(slots=3)
    answer(ServingMetrics(counters, slot=0), times=5)

    def work() -> None:
        metrics = ServingMetrics(counters, slot=1)
        metrics.model("digits").ready(True)
        metrics.requests("digits", "1", "rest").begin()
        answer(metrics, times=7, seconds=3.0)

    labels = {"model": "digits", "version": "1", "protocol": "rest", "code": "200"}
    pid = in_child(work)
    assert counters.slot(1).pid == pid
    assert value(counters, "openclaw_requests_total", **labels) == 12
    assert value(counters, "openclaw_requests_in_flight", model="digits") == 1
    assert value(counters, "openclaw_inference_latency_seconds", model="digits", quantile="0.9") > 2.9
    counters.slot(1).leave()
    assert value(counters, "openclaw_requests_in_flight", model="digits") == 0
    assert value(counters, "openclaw_model_ready", model="digits") == 0
    assert value(counters, "openclaw_requests_total", **labels) == 12
    in_child(work)
    assert value(counters, "openclaw_requests_total", **labels) == 19
    assert value(counters, "openclaw_requests_in_flight", model="digits") == 1
    assert value(counters, "openclaw_inference_latency_seconds_count", model="digits") == 19


def test_a_process_that_was_taken_for_dead_counts_no_more_into_its_successors_slot() -> None:
    counters = SharedCounters()
    late = ServingMetrics(counters)
    answer(late, times=5)
    late.publish()
    counters.slot(0).leave()
    successor = ServingMetrics(counters)
    answer(successor, times=2)
    successor.publish()
    answer(late, times=100)
    late.publish()
    labels = {"model": "digits", "version": "1", "protocol": "rest", "code": "200"}
    assert value(counters, "openclaw_requests_total", **labels) == 7


def test_what_processes_have_taken_is_told_to_the_others_and_forgotten_with_them() -> None:
    counters = SharedCounters(slots=2)
    first, second = (Telemetry(counters, slot=slot) for slot in range(2))
    assert first.ledger is not None
    assert second.ledger is not None
    one, two = Account(1000, ledger=first.ledger), Account(1000, ledger=second.ledger)
    claim = one.take(700, level=Level.OBJECTS)
    assert two.free == 300
    with pytest.raises(OverBudget):
        two.take(301, level=Level.OBJECTS)
    claim.release()
    assert two.free == 300  # until the first one looks
    assert one.used() == 0
    assert two.free == 1000
    one.take(700, level=Level.OBJECTS)
    counters.slot(0).leave()
    assert two.free == 1000


def test_what_one_process_says_of_a_run_that_does_not_end_every_other_says_at_once() -> None:
    counters = SharedCounters(slots=2)
    first, second = (Telemetry(counters, slot=slot) for slot in range(2))
    first.watch(lambda: 5.0)
    assert second.stalled() < 1.0  # nobody was asked yet, and nothing published
    assert first.stalled() == pytest.approx(5.0)
    assert second.stalled() == pytest.approx(5.0)
    first.watch(lambda: 0.0)
    assert first.stalled() < 1.0
    assert second.stalled() < 1.0


def test_a_full_slot_serves_on_and_keeps_what_it_has(caplog: pytest.LogCaptureFixture) -> None:
    counters = SharedCounters(cells=9000)
    metrics = ServingMetrics(counters)
    for name in ("first", "second"):
        metrics.requests(name, "1", "rest").begin()
        metrics.requests(name, "1", "rest").answered(200, 0.0)
    metrics.publish()
    assert "no room for the metric" in caplog.text
    assert value(counters, "openclaw_requests_total", model="first", version="1", protocol="rest", code="200") == 1


@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(1, 20)), unique_by=lambda block: block[0], max_size=30))
def test_blocks_are_found_again_under_their_keys(blocks: list[tuple[bytes, int]]) -> None:
    counters = SharedCounters(cells=4096)
    slot = counters.slot(0)
    slot.take()
    for number, (key, size) in enumerate(blocks):
        start = slot.block(key, size)
        assert start is not None
        slot.write(start, [float(number)] * size)
    again = counters.slot(0)
    assert [(key, values.tolist()) for key, values in again.blocks()] == [
        (key, [float(number)] * size) for number, (key, size) in enumerate(blocks)
    ]
    assert [again.block(key, size) for key, size in blocks] == [slot.block(key, size) for key, size in blocks]


def test_an_entry_that_is_not_all_there_ends_the_reading() -> None:
    counters = SharedCounters()
    slot = counters.slot(0)
    slot.take()
    slot.block(b"whole", 2)
    slot.cells[0] += 50
    assert [key for key, _ in counters.slot(0).blocks()] == [b"whole"]


@pytest.mark.parametrize("slot", [-1, 2])
def test_a_slot_that_is_not_there_is_refused(slot: int) -> None:
    with pytest.raises(IndexError, match="allowed: 0 to 1"):
        ServingMetrics(SharedCounters(slots=2), slot=slot)


def test_a_family_refuses_labels_that_are_not_its_own() -> None:
    with pytest.raises(ValueError, match="openclaw_requests has the labels"):
        families.REQUESTS.key("digits")
