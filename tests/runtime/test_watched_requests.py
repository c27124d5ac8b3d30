"""A server that logs and traces every request, whatever protocol and form it comes in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
INFER, PREDICT = "/v2/models/digits/infer", "/v1/models/digits:predict"
HEADER = "Inference-Header-Content-Length"


class Collector:
    """An OTLP receiver: the spans that it was sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.app = web.Application()
        self.app.router.add_post("/v1/traces", self._take)

    async def _take(self, posted: web.Request) -> web.Response:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        document = ExportTraceServiceRequest.FromString(await posted.read())
        self.spans += [span for one in document.resource_spans for scope in one.scope_spans for span in scope.spans]
        return web.Response(body=b"", content_type="application/x-protobuf")


@pytest.fixture
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    taken = Collector()
    async with TestServer(taken.app) as running:
        yield taken, str(running.make_url(""))


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


async def ask(
    client: aiohttp.ClientSession, path: str, body: bytes, *, number: int, headers: dict[str, str]
) -> tuple[int, int]:
    """The status and the size of the answer to a request that names its caller and itself."""
    told = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": f"r{number}"}
    async with client.post(path, data=body, headers=told | headers) as answer:
        return answer.status, len(await answer.read())


async def test_each_has_a_line_and_a_span(
    start_server: Callable[..., Any], models: Any, collector: tuple[Collector, str]
) -> None:
    taken, endpoint = collector
    environment = {"OPENCLAW_ACCESS_LOG": "all", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    server = await asyncio.to_thread(
        lambda: start_server(models.digits(), "--drain-delay", 0, **environment).wait_ready()
    )
    tensor: dict[str, Any] = {"name": "image", "datatype": "FP32", "shape": [1, 64]}
    image = np.ones((1, 64), np.float32).tobytes()
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(image)}}]}).encode()
    requests = [
        (INFER, json.dumps({"inputs": [{**tensor, "data": [1.0] * 64}]}).encode(), {}),
        (INFER, head + image, {HEADER: str(len(head))}),
        (PREDICT, json.dumps({"instances": [[1.0] * 64]}).encode(), {}),
        (INFER, json.dumps({"inputs": [{**tensor, "data": [1.0]}]}).encode(), {}),
    ] * 2  # the second time they could take the shortcut, if nobody watched
    codes = [200, 200, 200, 400] * 2
    async with aiohttp.ClientSession(server.url) as client:
        answers = [
            await ask(client, path, body, number=number, headers=headers)
            for number, (path, body, headers) in enumerate(requests)
        ]
    assert [status for status, _ in answers] == codes
    assert await asyncio.to_thread(server.stop) == 0  # which flushes both
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    assert len(lines) == len(taken.spans) == len(requests)
    for number, (line, span) in enumerate(zip(lines, taken.spans, strict=True)):
        path, body, _ = requests[number]
        status, size = answers[number]
        assert (line["protocol"], line["method"], line["path"], line["code"]) == ("rest", "POST", path, status)
        assert (line["model"], line["version"], line["request_id"]) == ("digits", "1", f"r{number}")
        assert (line["bytes_in"], line["bytes_out"], line["trace_id"]) == (len(body), size, TRACE)
        assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("request", TRACE, PARENT)
        assert attributes(span) == {
            "openclaw.model": "digits",
            "openclaw.version": "1",
            "openclaw.protocol": "rest",
            "http.response.status_code": status,
        }
        seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        assert 0 < seconds == pytest.approx(line["duration_ms"] / 1e3, abs=0.05)
