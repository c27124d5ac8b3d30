"""The gRPC server over real models, asked by tritonclient, gRPC's own clients, and raw messages."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.utils.shared_memory as memory
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from onnx import TensorProto
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tritonclient.utils import InferenceServerException

from openclaw.errors import ConfigInvalid, DeadlineExceeded, NotReady, Overloaded, RequestError, UnknownModel
from openclaw.execute.session import Model
from openclaw.serving.accesslog import AccessLog, Sampling
from openclaw.serving.binding import bind
from openclaw.serving.grpc import inference_pb2 as pb
from openclaw.serving.grpc.ports import Served
from openclaw.serving.grpc.server import GrpcServer, Settings
from openclaw.serving.inference import InferRequest, InferResponse, Tensor
from openclaw.serving.sharedmemory import Regions
from openclaw.serving.tracing import TraceContext, Tracing

SERVICE = "/inference.GRPCInferenceService/"
LIMIT = 1024 * 1024
ROW = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)


@dataclass
class Numbers:
    """The statistics of a model in these tests."""

    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: tuple[int, int] = (0, 0)
    fail: tuple[int, int] = (0, 0)
    queue: tuple[int, int] = (0, 0)
    compute_input: tuple[int, int] = (0, 0)
    compute_infer: tuple[int, int] = (0, 0)
    compute_output: tuple[int, int] = (0, 0)
    batches: dict[int, tuple[int, int]] = field(default_factory=dict)


class OneModel:
    """A real model with one thread; ``open`` lets inferences through, ``error`` is raised instead of one."""

    def __init__(self, model: Model, *, inline: bool = False) -> None:
        self.name = model.name
        self.version = "3"
        self.versions = ("3",)
        self.signature = model.signature
        self.ready = True
        self.inline = inline
        self.open = threading.Event()
        self.open.set()
        self.error: Exception | None = None
        self.deadlines: list[float | None] = []
        self.traces: list[TraceContext | None] = []
        self.coming: list[asyncio.Future[InferResponse]] = []
        self.numbers = Numbers()
        self._model = model
        self._thread = ThreadPoolExecutor(1)

    def infer(
        self, request: InferRequest, *, deadline: float | None = None, trace: TraceContext | None = None
    ) -> InferResponse | asyncio.Future[InferResponse]:
        self.deadlines.append(deadline)
        self.traces.append(trace)
        arrays, wanted = bind(request, self.signature)
        if self.error is not None:
            raise self.error
        loop = asyncio.get_running_loop()
        if deadline is not None and deadline <= loop.time():
            raise DeadlineExceeded("the deadline passed before the inference began")

        def run() -> InferResponse:
            assert self.open.wait(30)
            began = time.perf_counter_ns()
            results = self._model.infer([output.name for output in wanted], arrays)
            spent = time.perf_counter_ns() - began
            rows = len(next(iter(arrays.values())))
            self.numbers.inference_count += rows
            self.numbers.execution_count += 1
            self.numbers.compute_infer = (self.numbers.compute_infer[0] + 1, self.numbers.compute_infer[1] + spent)
            self.numbers.batches[rows] = (self.numbers.batches.get(rows, (0, 0))[0] + 1, spent)
            tensors = tuple(
                Tensor(output.name, self._model.datatypes[output.name], array, True, region=output.region)
                for output, array in zip(wanted, results, strict=True)
            )
            return InferResponse(self.name, self.version, tensors, request.id)

        if self.inline:
            return run()
        self.coming.append(loop.run_in_executor(self._thread, run))
        return self.coming[-1]

    def statistics(self) -> Numbers:
        return self.numbers

    def close(self) -> None:
        self.open.set()
        self._thread.shutdown()


class Models:
    """A repository of what the tests put there; models can be taken out and back."""

    def __init__(self, *served: OneModel) -> None:
        self.live = True
        self.all = {each.name: each for each in served}
        self.out: set[str] = set()

    @property
    def ready(self) -> bool:
        return not self.out and all(each.ready for each in self.all.values())

    def names(self) -> tuple[str, ...]:
        return tuple(self.all)

    def find(self, name: str, version: str | None) -> OneModel:
        served = self.all.get(name)
        if served is None:
            raise UnknownModel(f"there is no model {name!r}; served here: {', '.join(self.all)}")
        if version not in (None, served.version):
            raise UnknownModel(f"model {name!r} has no version {version!r}; it has: {served.version!r}")
        if name in self.out:
            raise NotReady(f"model {name!r} is not loaded")
        return served

    def is_ready(self, name: str, version: str | None) -> bool:
        try:
            return self.find(name, version).ready
        except NotReady:
            return False

    def index(self) -> Sequence[tuple[str, str, str, str]]:
        return [
            (name, each.version, "UNAVAILABLE" if name in self.out else "READY", "unloaded" if name in self.out else "")
            for name, each in self.all.items()
        ]

    async def load(self, name: str) -> None:
        self.find(name, None) if name not in self.out else self.out.discard(name)

    async def unload(self, name: str) -> None:
        self.find(name, None)
        self.out.add(name)


@dataclass
class Running:
    server: GrpcServer
    models: Models
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def digits(self) -> OneModel:
        return self.models.all["digits"]


@asynccontextmanager
async def serve(*served: OneModel, settings: Settings | None = None, **options: Any) -> AsyncIterator[Running]:
    models = Models(*served)
    if options.pop("loading", False):
        options["loading"] = models
    server = GrpcServer(models, settings or Settings(max_message_bytes=LIMIT), **options)
    try:
        yield Running(server, models, await server.start())
    finally:
        for each in served:
            each.open.set()
        await server.stop(5)
        for each in served:
            each.close()


@pytest.fixture
def digits(models: Any) -> OneModel:
    return OneModel(Model.from_file(models.digits(), threads=1))


@pytest.fixture
async def running(digits: OneModel) -> AsyncIterator[Running]:
    async with serve(digits) as running:
        yield running


@pytest.fixture
async def channel(running: Running) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(running.address) as channel:
        yield channel


@pytest.fixture
async def client(running: Running) -> AsyncIterator[triton_aio.InferenceServerClient]:
    async with triton_aio.InferenceServerClient(running.address) as client:
        yield client


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition is another's state, which tells nobody
            await asyncio.sleep(0.005)


def given(name: str, array: np.ndarray[Any, Any], datatype: str) -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def image(array: np.ndarray[Any, Any] = ROW) -> list[triton.InferInput]:
    return [given("image", array, "FP32")]


def message(array: np.ndarray[Any, Any] = ROW, *, model: str = "digits", version: str = "", id: str = "") -> Any:
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="FP32", shape=array.shape)
    return pb.ModelInferRequest(
        model_name=model, model_version=version, id=id, inputs=[tensor], raw_input_contents=[array.tobytes()]
    )


def method(channel: grpc.aio.Channel, name: str, answer: Any) -> Any:
    return channel.unary_unary(
        SERVICE + name,
        request_serializer=lambda each: each.SerializeToString(),
        response_deserializer=answer.FromString,
    )


def model_infer(channel: grpc.aio.Channel) -> Any:
    return method(channel, "ModelInfer", pb.ModelInferResponse)


def expected(models: Any, array: np.ndarray[Any, Any] = ROW) -> np.ndarray[Any, Any]:
    scores: np.ndarray[Any, Any] = Model.from_file(models.digits(), threads=1).run({"image": array})["scores"]
    return scores


async def refused(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


# Answers


async def test_tritonclient_asks_everything_and_infers(running: Running, models: Any) -> None:
    def ask() -> None:
        with triton.InferenceServerClient(running.address) as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready("digits")
            assert client.is_model_ready("digits", "3")
            assert client.get_server_metadata().name == "openclaw"
            metadata = client.get_model_metadata("digits", as_json=True)
            assert metadata["versions"] == ["3"]
            assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": ["-1", "64"]}]
            assert metadata["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": ["-1", "10"]}]
            config = client.get_model_config("digits", as_json=True)["config"]
            assert config["input"] == [{"name": "image", "data_type": "TYPE_FP32", "dims": ["-1", "64"]}]
            assert client.get_model_repository_index(as_json=True) == {
                "models": [{"name": "digits", "version": "3", "state": "READY"}]
            }
            result = client.infer("digits", image(), request_id="seven", client_timeout=20)
            assert result.get_response().id == "seven"
            assert result.get_response().model_version == "3"
            np.testing.assert_array_equal(result.as_numpy("scores"), expected(models))

    await asyncio.to_thread(ask)


async def test_tritonclient_streams(running: Running, models: Any) -> None:
    def ask() -> list[tuple[Any, Any]]:
        answers: list[tuple[Any, Any]] = []
        there = threading.Semaphore(0)

        def take(result: Any, error: Any) -> None:
            answers.append((result, error))
            there.release()

        with triton.InferenceServerClient(running.address) as client:
            client.start_stream(take)
            for number in range(20):
                name = "nothing" if number == 7 else "digits"
                client.async_stream_infer(name, image(ROW * number), request_id=str(number))
            for _ in range(20):
                assert there.acquire(timeout=20)
            client.stop_stream()
        return answers

    answers = await asyncio.to_thread(ask)
    assert "there is no model 'nothing'" in str(answers[7][1])
    good = [(number, result) for number, (result, error) in enumerate(answers) if error is None]
    assert [result.get_response().id for _, result in good] == [str(n) for n in range(20) if n != 7]
    for number, result in good:
        np.testing.assert_array_equal(result.as_numpy("scores"), expected(models, ROW * number))


async def test_a_model_that_is_computed_inline_is_answered(models: Any) -> None:
    inline = OneModel(Model.from_file(models.digits(), threads=1), inline=True)
    async with serve(inline) as running, triton_aio.InferenceServerClient(running.address) as client:
        result = await client.infer("digits", image())
        np.testing.assert_array_equal(result.as_numpy("scores"), expected(models))


@pytest.mark.parametrize(
    ("onnx_type", "datatype", "values"),
    [
        (TensorProto.BOOL, "BOOL", np.array([[True, False]])),
        (TensorProto.UINT8, "UINT8", np.array([[0, 255]], np.uint8)),
        (TensorProto.UINT16, "UINT16", np.array([[0, 65535]], np.uint16)),
        (TensorProto.UINT32, "UINT32", np.array([[0, 2**32 - 1]], np.uint32)),
        (TensorProto.UINT64, "UINT64", np.array([[0, 2**64 - 1]], np.uint64)),
        (TensorProto.INT8, "INT8", np.array([[-128, 127]], np.int8)),
        (TensorProto.INT16, "INT16", np.array([[-32768, 32767]], np.int16)),
        (TensorProto.INT32, "INT32", np.array([[-(2**31), 2**31 - 1]], np.int32)),
        (TensorProto.INT64, "INT64", np.array([[-(2**63), 2**63 - 1]], np.int64)),
        (TensorProto.FLOAT16, "FP16", np.array([[1.5, np.inf]], np.float16)),
        (TensorProto.FLOAT, "FP32", np.array([[1.5, np.nan]], np.float32)),
        (TensorProto.DOUBLE, "FP64", np.array([[1e300, -0.0]], np.float64)),
        (TensorProto.STRING, "BYTES", np.array([["", "grüße"]], object)),
        (TensorProto.BFLOAT16, "BF16", np.array([[1.5, -2.0]], ml_dtypes.bfloat16)),
    ],
)
async def test_every_datatype_goes_there_and_back(
    models: Any, onnx_type: int, datatype: str, values: np.ndarray[Any, Any]
) -> None:
    same = OneModel(Model.from_file(models.identity(onnx_type), name="same", threads=1))
    async with serve(same) as running, triton_aio.InferenceServerClient(running.address) as client:
        result = await client.infer("same", [given("x", values, datatype)])
        answer = result.as_numpy("y")
        assert result.get_output("y").datatype == datatype
        if datatype == "BYTES":
            assert [item.decode() for item in answer.flat] == list(values.flat)
        else:
            np.testing.assert_array_equal(np.asarray(answer, values.dtype), values)
        config = await client.get_model_config("same", as_json=True)
        assert config["config"]["output"][0]["data_type"] == f"TYPE_{datatype.replace('BYTES', 'STRING')}"


async def test_only_the_outputs_asked_for_are_answered_in_their_order(models: Any) -> None:
    pair = OneModel(Model.from_file(models.pair(), threads=1))
    async with serve(pair) as running, triton_aio.InferenceServerClient(running.address) as client:
        inputs = [given("a", np.array([5, 6]), "INT64"), given("b", np.array([1, 2]), "INT64")]
        every = await client.infer("pair", inputs)
        assert [output.name for output in every.get_response().outputs] == ["sum", "difference"]
        wanted = [triton.InferRequestedOutput("difference"), triton.InferRequestedOutput("sum")]
        both = await client.infer("pair", inputs, outputs=wanted)
        assert [output.name for output in both.get_response().outputs] == ["difference", "sum"]
        assert both.as_numpy("difference").tolist() == [4, 4]
        assert both.as_numpy("sum").tolist() == [6, 8]


async def test_a_large_tensor_is_answered(models: Any) -> None:
    rows = np.random.default_rng(1).standard_normal((3000, 64)).astype(np.float32)
    served = OneModel(Model.from_file(models.digits(), threads=1))
    async with serve(served) as running, triton_aio.InferenceServerClient(running.address) as client:
        result = await client.infer("digits", image(rows))
        np.testing.assert_array_equal(result.as_numpy("scores"), expected(models, rows))


async def test_many_calls_at_once_get_their_own_answers(client: Any, models: Any) -> None:
    async def ask(number: int) -> None:
        result = await client.infer("digits", image(ROW * number), request_id=str(number))
        assert result.get_response().id == str(number)
        np.testing.assert_array_equal(result.as_numpy("scores"), expected(models, ROW * number))

    await asyncio.gather(*[ask(number) for number in range(50)])


async def test_strings_too_many_for_the_event_loop_are_answered(models: Any) -> None:
    same = OneModel(Model.from_file(models.identity(TensorProto.STRING), name="same", threads=1))
    texts = np.array([[f"text {number}", ""] for number in range(20_000)], object)
    async with serve(same) as running, triton_aio.InferenceServerClient(running.address) as client:
        result = await client.infer("same", [given("x", texts, "BYTES")])
        assert [item.decode() for item in result.as_numpy("y").flat] == list(texts.flat)


# Refusals


@pytest.mark.parametrize("name", ["ModelInfer", "ModelReady", "ModelMetadata", "ModelConfig"])
@pytest.mark.parametrize(
    ("model", "version", "sentence"),
    [
        ("digit", "", "there is no model 'digit'; served here: digits"),
        ("", "", "there is no model ''; served here: digits"),
        ("digits", "2", "model 'digits' has no version '2'; it has: '3'"),
    ],
)
async def test_an_unknown_model_or_version_is_not_found(
    channel: grpc.aio.Channel, name: str, model: str, version: str, sentence: str
) -> None:
    infer = name == "ModelInfer"
    request = message(model=model, version=version)
    if not infer:
        request = getattr(pb, name + "Request")(name=model, version=version)
    error = await refused(method(channel, name, pb.ModelInferResponse)(request))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == sentence


async def test_a_wrong_shape_is_refused_with_what_is_allowed(client: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        await client.infer("digits", image(np.zeros((1, 63), np.float32)))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert caught.value.message() == 'input "image" has shape [1, 63]; the model takes [-1, 64] (-1: any size)'


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, grpc.StatusCode.INVALID_ARGUMENT),
        (404, grpc.StatusCode.NOT_FOUND),
        (413, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (415, grpc.StatusCode.INVALID_ARGUMENT),
        (429, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (500, grpc.StatusCode.INTERNAL),
        (501, grpc.StatusCode.UNIMPLEMENTED),
        (503, grpc.StatusCode.UNAVAILABLE),
        (504, grpc.StatusCode.DEADLINE_EXCEEDED),
        (507, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_an_error_keeps_its_kind_and_its_sentence(
    running: Running, channel: grpc.aio.Channel, status: int, code: grpc.StatusCode
) -> None:
    running.digits.error = type("Refused", (RequestError,), {"status": status})("the reason, für alle")
    error = await refused(model_infer(channel)(message()))
    assert (error.code(), error.details()) == (code, "the reason, für alle")


async def test_an_overloaded_server_says_when_to_come_back(running: Running, channel: grpc.aio.Channel) -> None:
    running.digits.error = Overloaded("the queue is full", retry_after=1.25)
    error = await refused(model_infer(channel)(message()))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = dict(error.trailing_metadata())
    assert trailers["retry-after"] == "2"
    assert trailers["grpc-retry-pushback-ms"] == "1250"


async def test_a_fault_of_the_server_is_logged_and_not_shown(
    running: Running, channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    running.digits.error = KeyError("the secret")
    error = await refused(model_infer(channel)(message()))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "internal error; the server's log has the reason"
    assert "the secret" in caplog.text


async def test_what_is_no_message_is_refused(channel: grpc.aio.Channel) -> None:
    for name in [each.name for each in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods]:
        if name != "ModelStreamInfer":
            error = await refused(channel.unary_unary(SERVICE + name)(b"\xff\xff"))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert f"the message is not a {name}Request" in error.details()


async def test_a_message_over_the_limit_is_refused_and_the_next_one_answered(
    channel: grpc.aio.Channel, models: Any
) -> None:
    rows = np.zeros((LIMIT // 256 + 1, 64), np.float32)
    error = await refused(model_infer(channel)(message(rows)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    answer = await model_infer(channel)(message())
    assert answer.raw_output_contents[0] == expected(models).tobytes()


async def test_a_compressed_message_is_unpacked_no_further_than_the_limit(
    channel: grpc.aio.Channel, models: Any
) -> None:
    infer = model_infer(channel)
    answer = await infer(message(), compression=grpc.Compression.Gzip)
    assert answer.raw_output_contents[0] == expected(models).tobytes()
    bomb = message(np.zeros((100 * LIMIT // 256, 64), np.float32))
    error = await refused(infer(bomb, compression=grpc.Compression.Gzip))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("CudaSharedMemoryStatus", "CUDA shared memory is not supported"),
        ("CudaSharedMemoryRegister", "CUDA shared memory is not supported"),
        ("CudaSharedMemoryUnregister", "CUDA shared memory is not supported"),
        ("TraceSetting", "trace settings are not supported"),
        ("LogSettings", "log settings are not supported"),
        ("RepositoryModelLoad", "loading and unloading models is not allowed"),
        ("RepositoryModelUnload", "loading and unloading models is not allowed"),
        ("SystemSharedMemoryStatus", "shared memory is not allowed"),
        ("SystemSharedMemoryRegister", "shared memory is not allowed"),
        ("SystemSharedMemoryUnregister", "shared memory is not allowed"),
        ("ModelStatistics", "model statistics are not shown"),
    ],
)
async def test_what_is_not_offered_says_so(channel: grpc.aio.Channel, name: str, sentence: str) -> None:
    request = getattr(pb, name + "Request")()
    error = await refused(method(channel, name, pb.ModelInferResponse)(request))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert sentence in error.details()


# Extensions


async def test_models_are_loaded_and_unloaded_where_that_is_allowed(digits: OneModel) -> None:
    async with serve(digits, loading=True) as running, triton_aio.InferenceServerClient(running.address) as client:
        await client.unload_model("digits")
        assert not await client.is_model_ready("digits")
        assert not await client.is_server_ready()
        index = (await client.get_model_repository_index(as_json=True))["models"]
        assert index == [{"name": "digits", "version": "3", "state": "UNAVAILABLE", "reason": "unloaded"}]
        with pytest.raises(InferenceServerException, match="is not loaded") as caught:
            await client.infer("digits", image())
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        await client.load_model("digits")
        assert await client.is_model_ready("digits")
        with pytest.raises(InferenceServerException, match="there is no model 'nothing'"):
            await client.load_model("nothing")
        with pytest.raises(InferenceServerException, match='parameter "config" is not supported'):
            await client.load_model("digits", config="{}")
        assert "model_repository" in (await client.get_server_metadata()).extensions


async def test_the_index_can_be_only_of_ready_models(digits: OneModel, models: Any) -> None:
    pair = OneModel(Model.from_file(models.pair(), threads=1))
    async with serve(digits, pair) as running, grpc.aio.insecure_channel(running.address) as channel:
        running.models.out.add("pair")
        index = method(channel, "RepositoryIndex", pb.RepositoryIndexResponse)
        assert [each.name for each in (await index(pb.RepositoryIndexRequest())).models] == ["digits", "pair"]
        assert [each.name for each in (await index(pb.RepositoryIndexRequest(ready=True))).models] == ["digits"]
        error = await refused(index(pb.RepositoryIndexRequest(repository_name="other")))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert 'repository_name is "other"' in error.details()


async def test_statistics_tell_what_was_computed(digits: OneModel, models: Any) -> None:
    pair = OneModel(Model.from_file(models.pair(), threads=1))
    async with (
        serve(digits, pair, statistics=True) as running,
        triton_aio.InferenceServerClient(running.address) as client,
    ):
        await client.infer("digits", image(np.zeros((5, 64), np.float32)))
        await client.infer("digits", image())
        (one,) = (await client.get_inference_statistics("digits")).model_stats
        assert (one.name, one.version, one.inference_count, one.execution_count) == ("digits", "3", 6, 2)
        assert one.inference_stats.compute_infer.count == 2
        assert one.inference_stats.compute_infer.ns > 0
        assert [(each.batch_size, each.compute_infer.count) for each in one.batch_stats] == [(1, 1), (5, 1)]
        every = await client.get_inference_statistics()
        assert [each.name for each in every.model_stats] == ["digits", "pair"]


@pytest.fixture
def shared() -> Iterator[Any]:
    """A shared memory object of tritonclient's with room for an image and its scores."""
    key = f"/openclaw-grpc-{time.monotonic_ns()}"
    handle = memory.create_shared_memory_region("both", key, 256 + 40)
    yield handle, key
    memory.destroy_shared_memory_region(handle)


async def test_tensors_go_through_shared_memory_where_that_is_allowed(
    digits: OneModel, models: Any, shared: Any
) -> None:
    handle, shared_key = shared
    memory.set_shared_memory_region(handle, [ROW])
    async with (
        serve(digits, regions=Regions(max_bytes=LIMIT)) as running,
        triton_aio.InferenceServerClient(running.address) as client,
    ):
        await client.register_system_shared_memory("both", shared_key, 296)
        status = await client.get_system_shared_memory_status(as_json=True)
        assert status["regions"]["both"]["byte_size"] == "296"
        tensor = triton.InferInput("image", [1, 64], "FP32")
        tensor.set_shared_memory("both", 256)
        wanted = triton.InferRequestedOutput("scores")
        wanted.set_shared_memory("both", 40, offset=256)
        result = await client.infer("digits", [tensor], outputs=[wanted])
        (output,) = result.get_response().outputs
        assert output.parameters["shared_memory_region"].string_param == "both"
        assert result.get_response().raw_output_contents == [b""]
        scores = memory.get_contents_as_numpy(handle, np.float32, [1, 10], 256)
        np.testing.assert_array_equal(scores, expected(models))
        wanted.set_shared_memory("both", 39, offset=256)
        with pytest.raises(InferenceServerException, match="has 40 bytes; shared_memory_byte_size"):
            await client.infer("digits", [tensor], outputs=[wanted])
        await client.unregister_system_shared_memory("both")
        with pytest.raises(InferenceServerException, match='no shared memory region "both"'):
            await client.infer("digits", [tensor])


async def test_shared_memory_is_refused_where_it_is_not_allowed(client: Any) -> None:
    tensor = triton.InferInput("image", [1, 64], "FP32")
    tensor.set_shared_memory("both", 256)
    with pytest.raises(InferenceServerException, match="shared memory is not allowed by this server"):
        await client.infer("digits", [tensor])


# Deadlines, cancellation, traces, counts


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


async def test_a_trace_context_is_handed_on(running: Running, channel: grpc.aio.Channel) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    infer = model_infer(channel)
    await infer(message(), metadata=(("traceparent", parent), ("tracestate", "a=1"), ("tracestate", "b=2")))
    await infer(message(), metadata=(("traceparent", "nonsense"),))
    await infer(message())
    handed, *others = running.digits.traces
    assert handed == TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1, "a=1,b=2")
    assert others == [None, None]


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

    def refused(self, code: int) -> None:
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


# Health and reflection


async def test_health_follows_the_readiness_of_all_and_of_each(digits: OneModel, models: Any) -> None:
    pair = OneModel(Model.from_file(models.pair(), threads=1))
    async with serve(digits, pair) as running, grpc.aio.insecure_channel(running.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def status(service: str) -> str:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

        names = ("", "inference.GRPCInferenceService", "digits", "pair")
        assert [await status(name) for name in names] == ["SERVING"] * 4
        pair.ready = False
        assert [await status(name) for name in names] == ["NOT_SERVING", "NOT_SERVING", "SERVING", "NOT_SERVING"]
        pair.ready = True
        running.models.out.add("digits")
        assert [await status(name) for name in names] == ["NOT_SERVING", "NOT_SERVING", "NOT_SERVING", "SERVING"]
        running.models.out.clear()
        assert await status("") == "SERVING"
        error = await refused(stub.Check(health_pb2.HealthCheckRequest(service="nothing")))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        error = await refused(channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff"))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        running.server.drain()
        assert [await status(name) for name in names] == ["NOT_SERVING"] * 4
        assert (await model_infer(channel)(message())).model_name == "digits"


async def test_a_watcher_is_told_of_every_change_until_the_server_ends(
    running: Running, channel: grpc.aio.Channel
) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="digits"))
    unknown = stub.Watch(health_pb2.HealthCheckRequest(service="nothing"))
    assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    running.digits.ready = False
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    running.digits.ready = True
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    await running.server.stop(10)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert await watch.read() is grpc.aio.EOF


async def test_a_client_that_knows_nothing_finds_the_service_by_reflection(
    running: Running, channel: grpc.aio.Channel
) -> None:
    ask = reflection_pb2.ServerReflectionRequest
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = [ask(list_services="")]
    names = ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", "inference.GRPCInferenceService"]
    requests += [ask(file_containing_symbol=name) for name in names]
    listed, *described = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    assert [each.name for each in listed.list_services_response.service] == names
    pool = descriptor_pool.DescriptorPool()
    for answer in described:
        for file in answer.file_descriptor_response.file_descriptor_proto:
            pool.Add(descriptor_pb2.FileDescriptorProto.FromString(file))
    found = pool.FindServiceByName("inference.GRPCInferenceService").methods_by_name["ModelReady"]
    request = message_factory.GetMessageClass(found.input_type)(name="digits")
    answer = await channel.unary_unary(SERVICE + "ModelReady")(request.SerializeToString())
    assert message_factory.GetMessageClass(found.output_type).FromString(answer).ready


# Life


async def test_a_stopping_server_answers_what_is_under_way(
    running: Running, channel: grpc.aio.Channel, models: Any
) -> None:
    running.digits.open.clear()
    call = model_infer(channel)(message())
    stream = channel.stream_stream(SERVICE + "ModelStreamInfer", None, pb.ModelStreamInferResponse.FromString)()
    await stream.write(message(ROW * 3).SerializeToString())
    await until(lambda: len(running.digits.coming) == 2)
    stopping = asyncio.create_task(running.server.stop(20))
    await asyncio.wait([stopping], timeout=0.1)
    assert not stopping.done()
    running.digits.open.set()
    assert (await call).raw_output_contents[0] == expected(models).tobytes()
    assert (await stream.read()).infer_response.raw_output_contents[0] == expected(models, ROW * 3).tobytes()
    error = await refused(stream.read())
    assert (error.code(), error.details()) == (
        grpc.StatusCode.UNAVAILABLE,
        "the server is stopping; open the stream anew",
    )
    await stopping
    error = await refused(model_infer(channel)(message()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_what_is_stuck_ends_with_the_grace(running: Running, channel: grpc.aio.Channel) -> None:
    running.digits.open.clear()
    call = model_infer(channel)(message())
    await until(lambda: len(running.digits.coming) == 1)
    await running.server.stop(0.05)
    await refused(call)
    await until(lambda: running.digits.coming[0].cancelled())


async def test_a_port_that_is_taken_is_a_clear_error(running: Running, digits: OneModel) -> None:
    other = GrpcServer(Models(digits), Settings(port=running.port))
    with pytest.raises(ConfigInvalid, match=rf"cannot listen on 127\.0\.0\.1:{running.port}"):
        await other.start()


class Forwarder:
    """Leads new connections to ``port`` while old ones stay where they were, as a cluster's network does."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        for pump in (self._pump(reader, back), self._pump(there, writer)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


async def test_a_stopping_server_fails_no_call_of_clients_that_can_go_elsewhere(digits: OneModel, models: Any) -> None:
    other = OneModel(Model.from_file(models.digits(), threads=1))
    settings = Settings(connection_seconds=1)
    async with serve(digits, settings=settings) as first, serve(other) as second:
        forwarder = Forwarder(first.port)
        ended = asyncio.Event()
        answered = 0

        async def ask(address: str) -> None:
            nonlocal answered
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(address, options=options) as channel:
                infer = model_infer(channel)
                while not ended.is_set():
                    await infer(message())
                    answered += 1

        async with forwarder.listening() as address:
            asking = [asyncio.create_task(ask(address)) for _ in range(8)]
            await until(lambda: answered >= 100)
            forwarder.port = second.port
            first.server.drain()
            await first.server.stop(20)
            seen = answered
            await until(lambda: answered >= seen + 100)
            ended.set()
            await asyncio.gather(*asking)
            assert digits.numbers.execution_count + other.numbers.execution_count == answered


async def test_processes_can_share_a_port(digits: OneModel, models: Any) -> None:
    other = OneModel(Model.from_file(models.digits(), threads=1))
    async with (
        serve(digits, settings=Settings(share_port=True)) as first,
        serve(other, settings=Settings(share_port=True, port=first.port)) as second,
    ):
        assert second.port == first.port

        async def ask() -> None:
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(first.address, options=options) as channel:
                await model_infer(channel)(message())

        async with asyncio.timeout(20):
            while not (digits.numbers.execution_count and other.numbers.execution_count):
                await asyncio.gather(*[ask() for _ in range(8)])


AFTER_A_FORK = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_grpc as tests
from openclaw.execute.session import Model
model = Model.from_file(Path(sys.argv[1]), threads=1)

async def ask():
    async with tests.serve(tests.OneModel(model)) as running:
        async with tests.grpc.aio.insecure_channel(running.address) as channel:
            answer = await tests.model_infer(channel)(tests.message())
            assert len(answer.raw_output_contents[0]) == 40

children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        asyncio.run(ask())
        os._exit(0)
    children.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def test_processes_forked_after_import_and_load_can_serve(models: Any) -> None:
    arguments = [sys.executable, "-c", AFTER_A_FORK, str(models.digits()), str(Path(__file__).parent)]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == "[0, 0]", ended.stderr


# The protocol


def test_the_generated_code_is_what_the_proto_gives() -> None:
    path = Path(__file__).parents[2] / "tools" / "proto" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate_protocol", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    generated: dict[Path, str] = module.generate()
    assert len(generated) == 2
    for path, text in generated.items():
        assert path.read_text() == text, f"{path} is old: python tools/proto/generate.py"


def test_names_numbers_and_types_are_those_of_another_implementation() -> None:
    theirs = {**_messages(triton.service_pb2.DESCRIPTOR), **_messages(triton.model_config_pb2.DESCRIPTOR)}
    for name, fields in _messages(pb.DESCRIPTOR).items():
        for field_name, described in fields.items():
            assert theirs[name][field_name] == described, f"{name}.{field_name}"
    service = "GRPCInferenceService"
    assert _methods(pb.DESCRIPTOR, service) == _methods(triton.service_pb2.DESCRIPTOR, service)
    assert dict(pb.DataType.items()) == dict(triton.model_config_pb2.DataType.items())


def _messages(file: Any) -> dict[str, dict[str, tuple[Any, ...]]]:
    """Number, type, whether it is repeated and message type of each field of each message."""
    found: dict[str, dict[str, tuple[Any, ...]]] = {}
    waiting = list(file.message_types_by_name.values())
    while waiting:
        described = waiting.pop()
        waiting.extend(described.nested_types)
        found[described.full_name] = {
            each.name: (each.number, each.type, each.is_repeated, each.message_type and each.message_type.full_name)
            for each in described.fields
        }
    return found


def _methods(file: Any, service: str) -> set[tuple[Any, ...]]:
    return {
        (each.name, each.input_type.full_name, each.output_type.full_name, each.client_streaming, each.server_streaming)
        for each in file.services_by_name[service].methods
    }


async def test_no_wrong_byte_of_a_request_is_an_internal_error(channel: grpc.aio.Channel, models: Any) -> None:
    random = np.random.default_rng(4)
    whole = message(model="digits", version="3", id="an id").SerializeToString()
    codes: set[grpc.StatusCode] = set()
    for _ in range(600):
        broken = bytearray(whole)
        for place in random.integers(0, 80, random.integers(1, 4)):
            broken[place] = random.integers(0, 256)
        try:
            await channel.unary_unary(SERVICE + "ModelInfer")(bytes(broken))
            codes.add(grpc.StatusCode.OK)
        except grpc.aio.AioRpcError as error:
            codes.add(error.code())
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    assert grpc.StatusCode.INVALID_ARGUMENT in codes
    answer = await model_infer(channel)(message())
    assert answer.raw_output_contents[0] == expected(models).tobytes()
