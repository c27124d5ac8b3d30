"""Models that are loaded and unloaded while clients ask for them, and one that there is no room for."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import onnx
import psutil
import pytest
import tritonclient.grpc.aio as triton
from onnx import helper
from tritonclient.utils import InferenceServerException

from support.products import SIZE, products, weights
from support.waiting import until

IMAGE = np.ones((1, 64), np.float32)
BODY = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": [1.0] * 64}]}
SCORES = IMAGE @ np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32)
OVER_REST, OVER_GRPC = 8, 4
TIMES = 20
SPARE = 4
"""Threads that the pools of a server may still add; one that stays with each load would be five times as many."""


class Clients:
    """Ask a server for the digits all the time, and note how it answers."""

    def __init__(self, server: Any) -> None:
        self.answers: Counter[str] = Counter()
        self.wrong: list[Any] = []
        self.done = asyncio.Event()
        self._url = server.url
        self._grpc = f"127.0.0.1:{server.wait_for(r'gRPC on port ([0-9]+)').group(1)}"

    async def over_rest(self) -> None:
        async with aiohttp.ClientSession(self._url) as client:
            while not self.done.is_set():
                async with client.post("/v2/models/digits/infer", json=BODY) as answer:
                    document = await answer.json()
                    self.answers[str(answer.status)] += 1
                    if answer.status == 200:
                        self._check(np.array(document["outputs"][0]["data"]))

    async def over_grpc(self) -> None:
        tensor = triton.InferInput("image", [1, 64], "FP32")
        tensor.set_data_from_numpy(IMAGE)
        async with triton.InferenceServerClient(self._grpc) as client:
            while not self.done.is_set():
                try:
                    result = await client.infer("digits", [tensor])
                except InferenceServerException as error:
                    self.answers[error.status()] += 1
                else:
                    self.answers["OK"] += 1
                    self._check(result.as_numpy("scores"))

    def _check(self, scores: Any) -> None:
        if not np.allclose(scores.ravel(), SCORES.ravel(), rtol=1e-4, atol=1e-5):
            self.wrong.append(scores)


@asynccontextmanager
async def traffic(server: Any) -> AsyncIterator[Clients]:
    clients = Clients(server)
    async with asyncio.TaskGroup() as group:
        for _ in range(OVER_REST):
            group.create_task(clients.over_rest())
        for _ in range(OVER_GRPC):
            group.create_task(clients.over_grpc())
        try:
            yield clients
        finally:
            clients.done.set()


async def alternate(url: str, times: int) -> None:
    """Unloads the digits and loads them again."""
    async with aiohttp.ClientSession(url) as client:
        for _ in range(times):
            for verb in ("unload", "load"):
                async with client.post(f"/v2/repository/models/digits/{verb}") as answer:
                    assert answer.status == 200, await answer.text()


@pytest.mark.timeout(180)
async def test_clients_are_answered_right_or_told_to_come_again(
    start_server: Callable[..., Any], models: Any, tmp_path: Path
) -> None:
    path = shutil.copy(models.digits(), tmp_path)
    options = ("--grpc-port", 0, "--model-control", "--threads", 2, "--drain-delay", 0)
    server = await asyncio.to_thread(lambda: start_server(path, *options).wait_ready())
    process = psutil.Process(server.process.pid)

    def alone() -> bool:
        return not any(one.status == psutil.CONN_ESTABLISHED for one in process.net_connections())

    async with traffic(server):
        await alternate(server.url, 3)
    await until(alone)
    threads, files = process.num_threads(), process.num_fds()
    async with traffic(server) as clients:
        await alternate(server.url, TIMES)
    answers = clients.answers
    assert not clients.wrong
    assert set(answers) <= {"200", "503", "OK", "StatusCode.UNAVAILABLE"}
    assert min(answers["200"], answers["OK"]) > TIMES
    assert answers["503"] + answers["StatusCode.UNAVAILABLE"] > 0
    await until(alone)
    await until(lambda: process.num_threads() <= threads + SPARE)
    await until(lambda: process.num_fds() <= files)
    assert await asyncio.to_thread(server.stop) == 0
    assert "Traceback" not in server.log


def solid(path: Path, *seeds: int) -> Path:
    """Products whose weights are in nodes, and so cannot be mapped."""
    model = onnx.load(products(path, *seeds))
    old = model.graph
    constants = [helper.make_node("Constant", [], [one.name], value=one) for one in old.initializer]
    graph = helper.make_graph([*constants, *old.node], "solid", old.input, old.output)
    onnx.save(helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version), path)
    return path


async def test_a_model_that_there_is_no_room_for_is_refused_with_the_numbers_and_the_old_one_answers(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    path = solid(tmp_path / "m.onnx", 1)
    options = ("--model-control", "--memory-budget", "32MiB", "--drain-delay", 0)
    server = await asyncio.to_thread(lambda: start_server(path, *options).wait_ready())
    solid(path, *range(48))  # 48 MiB
    given = np.linspace(-1, 1, SIZE, dtype=np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, SIZE], "data": given.tolist()}
    async with aiohttp.ClientSession(server.url) as client:
        async with client.post("/v2/repository/models/m/load") as answer:
            assert answer.status == 507
            error = (await answer.json())["error"]
        assert "model 'm' takes at least 5" in error
        assert "the budget is 33,554,432" in error
        async with client.post("/v2/models/m/infer", json={"inputs": [tensor]}) as answer:
            assert answer.status == 200
            (output,) = (await answer.json())["outputs"]
        np.testing.assert_allclose(output["data"], given @ weights(1), rtol=1e-3, atol=1e-4)
    assert await asyncio.to_thread(server.stop) == 0
    assert "Traceback" not in server.log
