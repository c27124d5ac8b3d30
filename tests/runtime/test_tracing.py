"""Trace context as W3C writes it, and spans by the real OpenTelemetry SDK."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from openclaw.serving import tracing
from openclaw.serving.tracing import TraceContext, Traced, Tracing, parse

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01".encode()


def ids(digits: int) -> st.SearchStrategy[str]:
    return st.integers(1, 16**digits - 1).map(lambda number: f"{number:0{digits}x}")


@given(trace_id=ids(32), parent_id=ids(16), flags=st.integers(0, 1))
def test_a_callers_headers_are_its_context(trace_id: str, parent_id: str, flags: int) -> None:
    states = [b"rojo=00f067aa0ba902b7", b"congo@x=t61rcWkgMzE"]
    context = parse(f"00-{trace_id}-{parent_id}-{flags:02x}".encode(), states)
    assert context == TraceContext(trace_id, parent_id, flags, "rojo=00f067aa0ba902b7,congo@x=t61rcWkgMzE")


@given(st.binary(max_size=80), st.lists(st.binary(max_size=60), max_size=4))
def test_no_header_is_an_error(traceparent: bytes, tracestates: list[bytes]) -> None:
    for parent in (traceparent, VALID):
        context = parse(parent, tracestates)
        assert context is None or context.state.isprintable()


@given(st.integers(0, len(VALID) - 1), st.integers(0, 255))
def test_one_changed_byte_gives_another_valid_context_or_none(at: int, byte: int) -> None:
    changed = VALID[:at] + bytes([byte]) + VALID[at + 1 :]
    context = parse(changed)
    if context is not None:
        assert {context.trace_id, context.parent_id} <= set(changed.decode("latin-1").split("-"))
        assert int(context.trace_id, 16)
        assert int(context.parent_id, 16)


@pytest.mark.parametrize(
    "traceparent",
    [
        b"",
        VALID.upper(),
        VALID + b"-extra",
        VALID[:-1],
        b"ff" + VALID[2:],
        f"00-{'0' * 32}-{PARENT}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        b"01" + VALID[2:] + b"extra",
    ],
)
def test_what_the_standard_forbids_is_no_context(traceparent: bytes) -> None:
    assert parse(traceparent) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert parse(b"cc" + VALID[2:] + b"-what-the-future-will-be-like") == TraceContext(TRACE, PARENT, 1)
    assert parse(b" " + VALID + b"\t") == TraceContext(TRACE, PARENT, 1)


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        ([b"a=1", b" b=2 ,, c=3 "], "a=1,b=2,c=3"),
        ([b"a=1,a=2"], ""),
        ([b"A=1"], ""),
        ([b"a"], ""),
        ([b"a=\x01"], ""),
        ([b"a=1=2"], ""),
        ([b",".join(b"k%d=1" % i for i in range(32))], ",".join(f"k{i}=1" for i in range(32))),
        ([b",".join(b"k%d=1" % i for i in range(33))], ""),
        ([b"a=" + b"x" * 5000], ""),
    ],
)
def test_a_state_is_kept_whole_or_dropped_without_the_context(states: list[bytes], kept: str) -> None:
    assert parse(VALID, states) == TraceContext(TRACE, PARENT, 1, kept)


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    yield exporter
    exporter.shutdown()


def recorded(exporter: InMemorySpanExporter, request: Traced, parent: TraceContext | None) -> dict[str, ReadableSpan]:
    traced = Tracing(SimpleSpanProcessor(exporter))
    traced.record(request, parent)
    traced.close()
    return {span.name: span for span in exporter.get_finished_spans()}


def request(code: int = 200) -> Traced:
    return Traced("digits", "1", "rest", code, 100.0, 100.5)


def test_a_span_continues_the_callers_trace_and_has_the_times_that_were_taken(exporter: InMemorySpanExporter) -> None:
    (span,) = recorded(exporter, request(), TraceContext(TRACE, PARENT, 1, "rojo=1")).values()
    assert span.name == "request"
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id) == (int(TRACE, 16), int(PARENT, 16))
    assert span.context.trace_id == int(TRACE, 16)
    assert span.context.trace_state.to_header() == "rojo=1"
    assert span.attributes is not None
    assert span.attributes["openclaw.model"] == "digits"
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == pytest.approx(0.5e9, rel=1e-6)


def test_spans_are_at_the_time_of_day(exporter: InMemorySpanExporter) -> None:
    before, began = time.time_ns(), time.perf_counter()
    span = recorded(exporter, Traced("m", "1", "rest", 200, began, time.perf_counter()), None)["request"]
    assert span.start_time is not None
    assert abs(span.start_time - before) < 1e9
    assert span.parent is None


def test_a_request_that_its_caller_does_not_sample_has_no_spans(exporter: InMemorySpanExporter) -> None:
    assert recorded(exporter, request(), TraceContext(TRACE, PARENT, 0)) == {}


@pytest.mark.parametrize(("code", "failed"), [(200, False), (400, False), (500, True), (503, True)])
def test_only_what_the_server_failed_is_an_error(exporter: InMemorySpanExporter, code: int, failed: bool) -> None:
    span = recorded(exporter, request(code), None)["request"]
    assert (span.status.status_code.name == "ERROR") is failed


def test_nothing_is_traced_unless_an_endpoint_is_named() -> None:
    assert tracing.from_environment({}) is None
    assert tracing.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}) is None


async def test_spans_reach_an_otlp_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    received: list[ExportTraceServiceRequest] = []

    async def traces(posted: web.Request) -> web.Response:
        received.append(ExportTraceServiceRequest.FromString(await posted.read()))
        return web.Response(body=b"", content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", traces)
    async with TestServer(app) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", str(collector.make_url("")))
        monkeypatch.setenv("OTEL_SERVICE_NAME", "digits")
        traced = tracing.from_environment(os.environ)
        assert traced is not None
        traced.record(request(), TraceContext(TRACE, PARENT, 1))
        await asyncio.to_thread(traced.close)
    (resource,) = received[0].resource_spans
    names = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    assert names["service.name"] == "digits"
    spans = resource.scope_spans[0].spans
    assert [(span.name, span.trace_id.hex()) for span in spans] == [("request", TRACE)]


def test_an_endpoint_without_an_exporter_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # None makes Python refuse the import, as where the package is not installed.
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert tracing.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}) is None
    assert "no traces: " in caplog.text
