"""The server against a client library that others wrote: Triton's."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto
from tritonclient.http.aio import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

IMAGES = np.random.default_rng(3).random((4, 64), dtype=np.float32)


async def test_health_and_metadata(digits_server: Any) -> None:
    async with InferenceServerClient(f"127.0.0.1:{digits_server.port}") as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("digits")
        assert (await client.get_server_metadata())["name"] == "openclaw"
        metadata = await client.get_model_metadata("digits", model_version="1")
        assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 64]}]


@pytest.mark.parametrize("binary_input", [False, True])
@pytest.mark.parametrize("binary_output", [False, True, None])
async def test_inference_in_json_and_binary(
    digits_server: Any, models: Any, binary_input: bool, *, binary_output: bool | None
) -> None:
    tensor = InferInput("image", list(IMAGES.shape), "FP32")
    tensor.set_data_from_numpy(IMAGES, binary_data=binary_input)
    outputs = None if binary_output is None else [InferRequestedOutput("scores", binary_data=binary_output)]
    async with InferenceServerClient(f"127.0.0.1:{digits_server.port}") as client:
        result = await client.infer("digits", [tensor], outputs=outputs, request_id="42")
    expected = onnxruntime.InferenceSession(models.digits()).run(None, {"image": IMAGES})[0]
    assert result.get_response()["id"] == "42"
    np.testing.assert_array_equal(result.as_numpy("scores"), expected)


async def test_a_refusal_reaches_the_client_as_its_message(digits_server: Any) -> None:
    tensor = InferInput("image", [1, 3], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 3), np.float32))
    async with InferenceServerClient(f"127.0.0.1:{digits_server.port}") as client:
        with pytest.raises(InferenceServerException, match=r"has shape \[1, 3\]; the model takes \[-1, 64\]"):
            await client.infer("digits", [tensor])


@pytest.mark.parametrize("binary", [False, True])
async def test_strings(start_server: Any, models: Any, binary: bool) -> None:
    path = models.identity(TensorProto.STRING)
    server = await asyncio.to_thread(lambda: start_server(path, "--name", "echo", "--drain-delay", 0).wait_ready())
    words = np.array([["grün", ""], ["a" * 1000, "日本"]], dtype=object)
    tensor = InferInput("x", [2, 2], "BYTES")
    tensor.set_data_from_numpy(words, binary_data=binary)
    async with InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        outputs = [InferRequestedOutput("y", binary_data=binary)]
        result = (await client.infer("echo", [tensor], outputs=outputs)).as_numpy("y")
    texts = [item.decode() if isinstance(item, bytes) else item for item in result.flat]
    assert texts == list(words.flat)
