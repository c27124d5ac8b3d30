"""Inference over gRPC on real models, asked by tritonclient and by raw messages."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from onnx import TensorProto
from tritonclient.utils import InferenceServerException

from grpcserving.calls import (
    LIMIT,
    ROW,
    SERVICE,
    expected,
    image,
    message,
    method,
    model_infer,
    refused,
    tensor_of,
)
from grpcserving.models import OneModel, Running, serve
from openclaw.errors import Overloaded, RequestError
from openclaw.execute.session import Model
from openclaw.serving.grpc import inference_pb2 as pb

pytest_plugins = ["grpcserving.fixtures"]


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
        result = await client.infer("same", [tensor_of("x", values, datatype)])
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
        inputs = [tensor_of("a", np.array([5, 6]), "INT64"), tensor_of("b", np.array([1, 2]), "INT64")]
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
        result = await client.infer("same", [tensor_of("x", texts, "BYTES")])
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
