"""Requests that fit a model's signature, and yet the model cannot take: refused with a reason, and alone."""

from __future__ import annotations

import asyncio
import platform
import re
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc.aio
import tritonclient.http.aio
from onnx import TensorProto
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from batching import models as graphs
from openclaw.config import ModelConfig
from openclaw.errors import InvalidRequest
from openclaw.execute.session import Model
from openclaw.serving.counters import SharedCounters
from openclaw.serving.inference import InferRequest, InferResponse, Tensor
from openclaw.serving.loading import Loaded
from openclaw.serving.served import Served
from openclaw.serving.telemetry import Telemetry

Inputs = Mapping[str, npt.NDArray[np.generic]]
CROWD = 16


def lookup(path: Path) -> Path:
    """FP32[N,1] x, cast to the index of a table of ten -> FP32[N,1] its tenfold."""
    graph = graphs.Graph()
    index = graph.op("Cast", "x", to=TensorProto.INT64)
    graph.op("Gather", graph.constant(np.arange(10) * 10, np.float32), index, output="y")
    return graph.save(path, [("x", TensorProto.FLOAT, ["N", 1])], [("y", TensorProto.FLOAT, ["N", 1])])


def numbers(*values: float) -> Inputs:
    return {"x": np.array(values, np.float32).reshape(-1, 1)}


def integers(**counts: int) -> Inputs:
    return {name: np.arange(count) for name, count in counts.items()}


def tokens(*, ids: int, mask: int) -> Inputs:
    return {**graphs.token_request(ids, seed=1), "attention_mask": np.ones((1, mask), np.int64)}


GOOD = [("lookup", numbers(3)), ("pair", integers(a=3, b=3)), ("transformer", tokens(ids=9, mask=9))]
BAD = {
    "infinity where an index is expected": ("lookup", numbers(1, np.inf)),
    "an index beyond its table": ("lookup", numbers(10)),
    "two inputs that cannot be added": ("pair", integers(a=2, b=3)),
    "an input without rows beside one with some": ("pair", integers(a=0, b=3)),
    "more tokens than there are positions": ("transformer", tokens(ids=600, mask=600)),
    "ids and mask of unequal length": ("transformer", tokens(ids=9, mask=5)),
}
if platform.machine() == "x86_64":  # where it becomes the least of integers; on others it is 0, which is an index
    BAD["NaN where an index is expected"] = ("lookup", numbers(np.nan))


@pytest.fixture
async def server(start_server: Callable[..., Any], models: Any, tmp_path: Path) -> AsyncIterator[Any]:
    paths = [lookup(tmp_path / "lookup.onnx"), models.pair(), graphs.transformer(tmp_path / "transformer.onnx")]
    server = await asyncio.to_thread(lambda: start_server(*paths, "--grpc-port", 0, "--drain-delay", 0).wait_ready())
    yield server
    assert await asyncio.to_thread(server.stop) == 0
    assert "Traceback" not in server.log


def given(library: Any, inputs: Inputs, **how: bool) -> list[Any]:
    tensors = []
    for name, array in inputs.items():
        tensors.append(library.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        tensors[-1].set_data_from_numpy(array, **how)
    return tensors


async def refusal(client: Any, model: str, tensors: list[Any]) -> InferenceServerException:
    with pytest.raises(InferenceServerException) as caught:
        await client.infer(model, tensors)
    return caught.value


async def test_they_are_refused_with_a_reason_over_rest(server: Any) -> None:
    library = tritonclient.http.aio
    async with library.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        for why, (model, inputs) in BAD.items():
            for binary in (True, False):
                if not binary and not all(np.isfinite(array).all() for array in inputs.values()):
                    continue  # JSON has no such numbers
                error = await refusal(client, model, given(library, inputs, binary_data=binary))
                assert (error.status(), error.message()[:9]) == ("400", "the model"), why
        for model, inputs in GOOD:
            await client.infer(model, given(library, inputs))


async def test_they_are_refused_with_a_reason_over_grpc(server: Any) -> None:
    library = tritonclient.grpc.aio
    port = server.wait_for(r"gRPC on port ([0-9]+)").group(1)
    async with library.InferenceServerClient(f"127.0.0.1:{port}") as client:
        for why, (model, inputs) in BAD.items():
            error = await refusal(client, model, given(library, inputs))
            assert (error.status(), error.message()[:9]) == ("StatusCode.INVALID_ARGUMENT", "the model"), why
        for model, inputs in GOOD:
            await client.infer(model, given(library, inputs))


async def test_they_are_refused_with_a_reason_by_the_v1_protocol(server: Any) -> None:
    bodies = {"lookup": {"instances": [[10]]}, "pair": {"inputs": {"a": [1, 2], "b": [1, 2, 3]}}}
    async with aiohttp.ClientSession(server.url) as client:
        for model, body in bodies.items():
            async with client.post(f"/v1/models/{model}:predict", json=body) as answer:
                assert (answer.status, (await answer.json())["error"][:9]) == (400, "the model")


async def test_one_in_a_crowd_fails_alone(server: Any) -> None:
    library = tritonclient.http.aio

    async def ask(value: float) -> list[float] | str:
        try:
            result = await client.infer("lookup", given(library, numbers(value)))
        except InferenceServerException as error:
            return str(error.status())
        return list(result.as_numpy("y").ravel())

    async with library.InferenceServerClient(f"127.0.0.1:{server.port}", conn_limit=CROWD) as client:
        for turn in range(40):
            values = [float((turn + number) % 10) for number in range(CROWD)]
            values[turn % CROWD] = np.inf
            answers = await asyncio.gather(*(ask(value) for value in values))
            assert answers == ["400" if np.isinf(value) else [10 * value] for value in values]
    async with aiohttp.ClientSession(server.url) as session, session.get("/metrics") as answer:
        assert not re.search(r'openclaw_requests_total{code="5', await answer.text())


async def test_a_model_that_is_back_from_disk_is_known_to_have_worked(models: Any) -> None:
    config = ModelConfig(name="pair", uri=models.pair().as_uri())
    first, again = (Loaded(config, Model.from_file(models.pair(), threads=1), seconds=0.0) for _ in range(2))
    metrics = Telemetry(SharedCounters()).metrics.model("pair")

    async def ask(**counts: int) -> InferResponse:
        tensors = [Tensor(name, "INT64", array) for name, array in integers(**counts).items()]
        answer = served.infer(InferRequest(tuple(tensors)))
        return answer if isinstance(answer, InferResponse) else await answer

    with ThreadPoolExecutor(1) as executor:
        served = Served(first, "1", metrics=metrics, executor=executor, runs=1)
        await ask(a=2, b=2)
        await served.take(again)
        with pytest.raises(InvalidRequest, match="the model takes no such inputs"):
            await ask(a=2, b=3)
