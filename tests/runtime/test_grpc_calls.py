"""A gRPC call beside its message: deadline, cancellation, trace, counts, log; and streams of calls."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from grpcserving.calls import (
    ROW,
    SERVICE,
    expected,
    message,
    model_infer,
    refused,
)
from grpcserving.models import OneModel, Running, serve
from openclaw.errors import Overloaded
from openclaw.serving.accesslog import AccessLog, Sampling
from openclaw.serving.grpc import inference_pb2 as pb
from openclaw.serving.grpc.ports import Served
from openclaw.serving.tracing import Tracing
from support.waiting import until

pytest_plugins = ["grpcserving.fixtures"]


async def test_the_clients_deadline_is_the_inferences(running: Running, channel: grpc.aio.Channel) -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    await model_infer(channel)(message(), timeout=50)
    await model_infer(channel)(message())
    first, second = running.digits.deadlines
    assert first is not None
    # The system's clock and the loop's are not the same, and the client's is rounded to what it sends.
    assert before + 49 < first < loop.time() + 51
    assert second is None


async def test_an_inference_ends_with_its_deadline(running: Running, channel: grpc.aio.Channel) -> None:
    running.digits.open.clear()
    calls = [model_infer(channel)(message(), timeout=0.3) for _ in range(3)]
    for call in calls:
        assert (await refused(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: len(running.digits.coming) == 3 and all(each.cancelled() for each in running.digits.coming))


async def test_a_cancelled_call_gives_up_the_inference_it_waits_for(
    running: Running, channel: grpc.aio.Channel, models: Any
) -> None:
    running.digits.open.clear()
    first = model_infer(channel)(message())
    await until(lambda: len(running.digits.coming) == 1)
    second = model_infer(channel)(message(ROW * 2))
    await until(lambda: len(running.digits.coming) == 2)
    second.cancel()
    await until(lambda: running.digits.coming[1].cancelled())
    running.digits.open.set()
    assert (await first).raw_output_contents[0] == expected(models).tobytes()
    assert running.digits.numbers.execution_count == 1


async def test_a_span_continues_the_trace_of_its_caller(digits: OneModel) -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing(SimpleSpanProcessor(exporter))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serve(digits, tracing=tracing) as running, grpc.aio.insecure_channel(running.address) as channel:
        infer = model_infer(channel)
        await infer(message(), metadata=(("traceparent", parent), ("tracestate", "a=1"), ("tracestate", "b=2")))
        await infer(message(), metadata=(("traceparent", "nonsense"),))
        await infer(message())
    tracing.close()
    continued, *others = exporter.get_finished_spans()
    assert continued.parent is not None
    assert f"{continued.parent.trace_id:032x}-{continued.parent.span_id:016x}" == parent[3:52]
    assert continued.context.trace_state.to_header() == "a=1,b=2"
    assert [span.parent for span in others] == [None, None]


class Counts:
    """Counts in plain numbers."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.codes: list[tuple[str, int]] = []
        self.refused: list[tuple[str, int]] = []

    def of(self, served: Served) -> OneCount:
        return OneCount(self, served.name)


@dataclass
class OneCount:
    counts: Counts
    name: str

    def begin(self) -> None:
        self.counts.in_flight += 1

    def answered(self, code: int, received: float) -> None:
        assert 0 <= time.perf_counter() - received < 60
        self.counts.in_flight -= 1
        self.counts.codes.append((self.name, code))

    def refused(self, code: int, *, reason: str | None = None) -> None:
        self.counts.in_flight -= 1
        self.counts.refused.append((self.name, code))


async def test_requests_are_counted_by_how_they_end(digits: OneModel) -> None:
    counts = Counts()
    async with serve(digits, recorder=counts.of) as running, grpc.aio.insecure_channel(running.address) as channel:
        infer = model_infer(channel)
        await infer(message())
        await refused(infer(message(np.zeros((1, 63), np.float32))))
        await refused(infer(pb.ModelInferRequest(model_name="digits")))
        await refused(infer(message(model="invented")))
        digits.error = Overloaded("too much", retry_after=1)
        await refused(infer(message()))
        digits.error = None
        digits.open.clear()
        call = infer(message())
        await until(lambda: len(digits.coming) == 2)
        assert counts.in_flight == 1
        call.cancel()
        await until(lambda: counts.in_flight == 0)
    assert counts.codes == [("digits", code) for code in (200, 400, 400, 499)]
    assert counts.refused == [("digits", 429)]


async def test_requests_are_traced_and_logged_where_that_is_wanted(digits: OneModel) -> None:
    lines: list[bytes] = []
    exporter = InMemorySpanExporter()
    tracing = Tracing(SimpleSpanProcessor(exporter))
    log = AccessLog(Sampling(1.0), lines.append)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with (
        serve(digits, tracing=tracing, log=log) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        metadata = (("traceparent", parent), ("x-request-id", "seven"))
        answer = await model_infer(channel)(message(), metadata=metadata)
        await refused(model_infer(channel)(message(np.zeros((1, 63), np.float32))))
        await refused(model_infer(channel)(message(model="invented")))
    log.close()
    tracing.close()
    first, second = [json.loads(line) for line in b"".join(lines).splitlines()]
    assert (first["protocol"], first["path"], first["code"]) == ("grpc", SERVICE + "ModelInfer", 200)
    assert (first["model"], first["version"], first["request_id"]) == ("digits", "3", "seven")
    assert (first["bytes_in"], first["bytes_out"]) == (message().ByteSize(), answer.ByteSize())
    assert first["trace_id"] == parent[3:35]
    assert (second["code"], second["bytes_out"], second["trace_id"]) == (400, 0, "")
    spans = exporter.get_finished_spans()
    assert [(span.name, span.attributes["http.response.status_code"]) for span in spans] == [
        ("request", 200),
        ("request", 400),
    ]
    assert f"{spans[0].context.trace_id:032x}" == parent[3:35]


# Streams


async def test_a_stream_answers_in_order_and_goes_on_after_errors(
    running: Running, channel: grpc.aio.Channel, models: Any
) -> None:
    async def requests() -> AsyncIterator[bytes]:
        for number in range(60):
            if number % 10 == 3:
                yield message(np.zeros((1, 5), np.float32), id=str(number)).SerializeToString()
            elif number % 10 == 4:
                yield b"\xff"
            else:
                yield message(ROW * number, id=str(number)).SerializeToString()

    stream = channel.stream_stream(SERVICE + "ModelStreamInfer", None, pb.ModelStreamInferResponse.FromString)
    answers = [answer async for answer in stream(requests())]
    assert len(answers) == 60
    for number, answer in enumerate(answers):
        if number % 10 == 4:
            assert "the message is not a ModelInferRequest" in answer.error_message
            continue
        assert answer.infer_response.id == str(number)
        if number % 10 == 3:
            assert 'input "image" has shape [1, 5]' in answer.error_message
        else:
            assert answer.error_message == ""
            assert answer.infer_response.raw_output_contents[0] == expected(models, ROW * number).tobytes()


async def test_a_stream_has_several_inferences_under_way_and_bounds_them(
    running: Running, channel: grpc.aio.Channel
) -> None:
    running.digits.open.clear()
    stream = channel.stream_stream(SERVICE + "ModelStreamInfer")(message().SerializeToString() for _ in range(100))
    await until(lambda: len(running.digits.coming) == 16)
    running.digits.open.set()
    assert len([answer async for answer in stream]) == 100
    stream = channel.stream_stream(SERVICE + "ModelStreamInfer")(message().SerializeToString() for _ in range(100))
    running.digits.open.clear()
    await until(lambda: len(running.digits.coming) == 116)
    stream.cancel()
    await until(lambda: all(each.done() for each in running.digits.coming[101:]))
    assert running.digits.numbers.execution_count <= 101
