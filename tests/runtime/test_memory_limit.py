"""A server in a container of limited memory: what its model makes of requests does not have it killed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import onnx
from benchmarks.memory.groups import allow, kills
from onnx import TensorProto, helper, numpy_helper

from openclaw.memory.budget import RESERVE
from support.groups import inside

MIB = 2**20
CLIENTS, SECONDS = 16, 4.0
WIDE = 4096


def spread(path: Path) -> Path:
    """Makes 16 MiB of each row of x FP32[N,1024] before it sums them up to y FP32[N]."""
    nodes = [
        helper.make_node("Reshape", ["x", "column"], ["c"]),
        helper.make_node("MatMul", ["c", "w"], ["wide"]),
        helper.make_node("ReduceSum", ["wide", "axes"], ["y"], keepdims=0),
    ]
    weights = {"column": np.array([-1, 1024, 1]), "w": np.ones((1, WIDE), np.float32), "axes": np.array([1, 2])}
    graph = helper.make_graph(
        nodes,
        "spread",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1024])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


async def test_a_server_within_its_limit_is_not_killed_for_what_its_requests_become(
    start_server: Callable[..., Any], cell: Path, tmp_path: Path
) -> None:
    budget = 64 * MIB
    allow(cell, budget + RESERVE)
    with inside(cell):
        server = start_server(spread(tmp_path / "spread.onnx"), "--memory-budget", budget, "--drain-delay", 0)
    await asyncio.to_thread(server.wait_ready)
    statuses: Counter[int] = Counter()
    until = time.monotonic() + SECONDS
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1024], "data": [0.5] * 1024}]}

    async def ask(client: aiohttp.ClientSession) -> None:
        while time.monotonic() < until:
            try:
                async with client.post("/v2/models/spread/infer", json=body) as answer:
                    statuses[answer.status] += 1
                    if answer.status == 200:
                        assert (await answer.json())["outputs"][0]["data"] == [0.5 * 1024 * WIDE]
            except aiohttp.ClientError:
                statuses[0] += 1
                await asyncio.sleep(0.2)

    async with asyncio.timeout(60), aiohttp.ClientSession(server.url) as client, asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(ask(client))
    assert kills(cell) == 0, server.log
    assert statuses[200] > 0
    assert set(statuses) <= {200, 429, 503}
    assert server.stop() == 0
