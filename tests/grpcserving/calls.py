"""Requests for the models of the tests, and ways to send them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from openclaw.execute.session import Model
from openclaw.serving.grpc import inference_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"
LIMIT = 1024 * 1024
ROW = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)


def tensor_of(name: str, array: np.ndarray[Any, Any], datatype: str) -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def image(array: np.ndarray[Any, Any] = ROW) -> list[triton.InferInput]:
    return [tensor_of("image", array, "FP32")]


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
