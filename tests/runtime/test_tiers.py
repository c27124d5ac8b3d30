"""Models that take turns in a server's memory: real servers, real budgets, real control groups."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import onnx
import pytest
from benchmarks.memory.groups import allow
from onnx import TensorProto, helper, numpy_helper

from support.groups import inside
from support.products import SIZE, TENSOR, products, weights
from support.waiting import until

MIB = 1 << 20
LAYERS = 8
MODEL = LAYERS * TENSOR  # 8 MiB
GIVEN = np.linspace(-1, 1, SIZE, dtype=np.float32)
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, SIZE], "data": GIVEN.tolist()}]}
BUDGET = 32 * MIB  # three models beside the buffers of requests

Start = Callable[..., Any]


def seeds(number: int) -> range:
    return range(100 * number, 100 * number + LAYERS)


def wanted(number: int) -> np.ndarray:
    answer = GIVEN
    for seed in seeds(number):
        answer = answer @ weights(seed)
    return answer


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("many")
    return [products(folder / f"m{number}.onnx", *seeds(number)) for number in range(6)]


class Client:
    """Asks one server."""

    def __init__(self, server: Any, session: aiohttp.ClientSession) -> None:
        self.server = server
        self._session = session

    async def ask(self, number: int, **parameters: Any) -> tuple[int, Any]:
        body = {**BODY, **({"parameters": parameters} if parameters else {})}
        async with self._session.post(f"/v2/models/m{number}/infer", json=body) as answer:
            return answer.status, await answer.json()

    async def check(self, number: int) -> None:
        """Asks, and holds the answer against the right one."""
        status, document = await self.ask(number)
        assert status == 200, document
        np.testing.assert_allclose(document["outputs"][0]["data"], wanted(number), rtol=1e-3, atol=1e-4)

    async def get(self, path: str) -> Any:
        async with self._session.get(path) as answer:
            assert answer.status == 200
            return await answer.json()

    async def metric(self, name: str, **labels: str) -> float:
        async with self._session.get("/metrics") as answer:
            text = await answer.text()
        inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        found = re.search(rf"^{name}{{{re.escape(inside)}}} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def tier(self, number: int) -> str:
        tiers = [tier for tier in ("packed", "mapped", "evicted") if await self._in(number, tier)]
        return ", ".join(tiers)

    async def _in(self, number: int, tier: str) -> bool:
        return await self.metric("openclaw_model_tier", model=f"m{number}", tier=tier) == 1.0

    async def some(self, tier: str) -> int:
        """A model in this tier."""
        return [await self.tier(number) for number in range(6)].index(tier)


@asynccontextmanager
async def serving(start_server: Start, *arguments: object, **environment: str) -> AsyncIterator[Client]:
    server = await asyncio.to_thread(lambda: start_server(*arguments, "--drain-delay", 0, **environment).wait_ready())
    async with aiohttp.ClientSession(server.url) as session:
        yield Client(server, session)
    assert await asyncio.to_thread(server.stop) == 0
    assert "Traceback" not in server.log


@pytest.fixture
async def crowded(start_server: Start, many: list[Path]) -> AsyncIterator[Client]:
    async with serving(start_server, *many, "--memory-budget", BUDGET) as client:
        yield client


async def test_more_models_than_there_is_memory_for_all_answer(crowded: Client) -> None:
    tiers = [await crowded.tier(number) for number in range(6)]
    assert tiers.count("evicted") >= 3
    order = np.random.default_rng(0).integers(0, 6, 120)

    async def ask(share: int) -> None:
        for number in order[share::6]:
            await crowded.check(int(number))

    async with asyncio.TaskGroup() as group:
        for share in range(6):
            group.create_task(ask(share))
    evictions = [await crowded.metric("openclaw_model_evictions_total", model=f"m{number}") for number in range(6)]
    reloads = [await crowded.metric("openclaw_model_reload_seconds_count", model=f"m{number}") for number in range(6)]
    assert sum(reloads) > 5
    assert sum(evictions) >= sum(reloads)
    lines = [{"pool": "weights", "model": f"m{number}", "state": "used"} for number in range(6)]
    held = sum([await crowded.metric("openclaw_memory_bytes", **labels) for labels in lines])
    assert 0 < held <= BUDGET
    # Whoever was evicted meanwhile has counted on.
    counts = [(await crowded.get(f"/v2/models/m{n}/stats"))["model_stats"][0]["inference_count"] for n in range(6)]
    assert counts == [int((order == number).sum()) for number in range(6)]


async def test_a_model_on_disk_is_ready_and_tells_its_signature(crowded: Client) -> None:
    number = await crowded.some("evicted")
    assert (await crowded.get(f"/v2/models/m{number}/ready"))["ready"] is True
    assert (await crowded.get(f"/v2/models/m{number}"))["inputs"][0]["shape"] == [-1, SIZE]
    assert await crowded.tier(number) == "evicted"


async def test_many_requests_to_a_model_on_disk_share_one_opening(crowded: Client) -> None:
    number = await crowded.some("evicted")
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(crowded.check(number))
    assert crowded.server.log.count(f"m{number} is back") == 1
    assert await crowded.metric("openclaw_model_reload_seconds_count", model=f"m{number}") == 1


async def test_a_deadline_holds_while_a_model_comes_back(crowded: Client) -> None:
    number = await crowded.some("evicted")
    status, document = await crowded.ask(number, timeout=1)
    assert (status, document["error"]) == (504, "the deadline passed before the model was back from disk")
    await crowded.check(number)


async def test_who_hangs_up_keeps_nobody_else_from_an_answer(crowded: Client) -> None:
    number = await crowded.some("evicted")
    gone = asyncio.create_task(crowded.ask(number))
    stays = asyncio.create_task(crowded.check(number))
    await asyncio.sleep(0)
    gone.cancel()
    with suppress(asyncio.CancelledError):
        await gone
    await stays


async def test_a_cache_that_loses_a_file_is_repaired(crowded: Client, tmp_path: Path) -> None:
    number = await crowded.some("evicted")
    shutil.rmtree(tmp_path / "cache" / "mapped")
    await crowded.check(number)
    for other in range(6):
        await crowded.check(other)


async def test_a_model_that_is_lost_is_told_and_others_are_served(
    start_server: Start, many: list[Path], tmp_path: Path
) -> None:
    copies = [Path(shutil.copy(path, tmp_path)) for path in many]
    async with serving(start_server, *copies, "--memory-budget", BUDGET) as client:
        number = await client.some("evicted")
        other = await client.some("packed")
        shutil.rmtree(tmp_path / "cache" / "mapped")
        copies[number].rename(tmp_path / "away")
        status, document = await client.ask(number)
        assert status == 503
        assert document["error"].startswith(f"model 'm{number}' cannot be brought back from disk: there is no file")
        await client.check(other)
        (tmp_path / "away").rename(copies[number])
        await client.check(number)


def constant(folder: Path, size: int) -> Path:
    """A model with so many bytes of weights that are in a node, and so cannot be mapped."""
    values = numpy_helper.from_array(np.zeros(size // 4, np.float32))
    nodes = [helper.make_node("Constant", [], ["w"], value=values), helper.make_node("Gather", ["w", "i"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(np.zeros(1, np.int64), "i")])
    path = folder / "constant.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def written(folder: Path, models: list[Path], *, pinned: set[int], **server: Any) -> Path:
    """A configuration file for these models."""
    sections = [
        {"name": path.stem, "uri": path.as_uri(), "pinned": number in pinned} for number, path in enumerate(models)
    ]
    document = {"model": sections[0], "models": sections[1:], "server": {"drainDelaySeconds": 0, **server}}
    file = folder / "server.json"
    file.write_text(json.dumps(document))
    return file


async def test_a_pinned_model_keeps_its_memory(start_server: Start, many: list[Path], tmp_path: Path) -> None:
    file = written(tmp_path, many, pinned={5}, memoryBudgetBytes=BUDGET)
    async with serving(start_server, "--config", file) as client:
        for number in (5, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4):
            await client.check(number)
        assert await client.tier(5) == "packed"
        assert "evicted m5" not in client.server.log


async def test_pinned_models_that_the_budget_is_too_small_for_are_refused_with_the_number(
    start_server: Start, many: list[Path], tmp_path: Path
) -> None:
    file = written(tmp_path, many, pinned=set(range(6)), memoryBudgetBytes=BUDGET)
    server = start_server("--config", file)
    assert await asyncio.to_thread(server.wait) == 78
    assert re.search(r"model 'm\d' takes at least [\d,]+ bytes of memory, and the budget is 33,554,432", server.log)
    assert json.loads((tmp_path / "termination.log").read_text())["reason"] == "OutOfMemory"


async def test_a_model_that_pinned_ones_leave_no_room_for_is_told_at_start(
    start_server: Start, many: list[Path], tmp_path: Path
) -> None:
    solid = constant(tmp_path, 20 * MIB)
    file = written(tmp_path, [solid, *many[:2]], pinned={1, 2}, memoryBudgetBytes=BUDGET)
    server = start_server("--config", file)
    assert await asyncio.to_thread(server.wait) == 78
    assert re.search(r"takes at least 3\d,\d+,\d+ bytes of memory, and the budget is 33,554,432", server.log)


async def test_a_budget_too_small_for_what_cannot_be_mapped_is_refused_with_the_number(
    start_server: Start, tmp_path: Path
) -> None:
    path = constant(tmp_path, 20 * MIB)
    server = start_server(path, "--memory-budget", "16MiB")
    assert await asyncio.to_thread(server.wait) == 78
    assert "model 'constant' takes at least 20,97" in server.log
    assert "raise the memory limit, or --memory-budget" in server.log


async def test_a_model_larger_than_the_budget_is_mapped(start_server: Start, tmp_path: Path) -> None:
    large = products(tmp_path / "m0.onnx", *seeds(0), *seeds(1), *seeds(2))
    async with serving(start_server, large, "--memory-budget", "20MiB") as client:
        assert await client.tier(0) == "mapped"
        assert (await client.get("/v2/models/m0/stats"))["model_stats"][0]["tier"] == "mapped"
        status, document = await client.ask(0)
        assert status == 200
        answer = GIVEN
        for number in range(3):
            for seed in seeds(number):
                answer = answer @ weights(seed)
        np.testing.assert_allclose(document["outputs"][0]["data"], answer, rtol=1e-2, atol=1e-4)


async def test_models_that_clients_load_take_the_place_of_others(
    start_server: Start, many: list[Path], tmp_path: Path
) -> None:
    options = ("--model-control", "--model-folder", many[0].parent, "--memory-budget", BUDGET)
    async with serving(start_server, many[0], *options) as client:
        for number in range(1, 6):
            async with client._session.post(f"/v2/repository/models/m{number}/load") as answer:
                assert answer.status == 200, await answer.text()
        for number in range(6):
            await client.check(number)
        assert "evicted" in [await client.tier(number) for number in range(6)]
        async with client._session.post("/v2/repository/models/m1/unload") as answer:
            assert answer.status == 200
        assert (await client.ask(1))[0] == 503
        await client.check(2)


async def test_workers_share_models_in_the_tiers_that_there_is_room_for(start_server: Start, many: list[Path]) -> None:
    options = ("--workers", 2, "--threads", 1, "--memory-budget", BUDGET)
    async with serving(start_server, *many[:3], *options) as client:
        for number in range(3):
            await client.check(number)
            assert await client.tier(number) == "packed"


@asynccontextmanager
async def serving_in(cell: Path, start_server: Start, *arguments: object) -> AsyncIterator[Client]:
    """A server that is in the group from its beginning."""

    def start(*inner: object, **environment: str) -> Any:
        with inside(cell):
            return start_server(*inner, **environment)

    async with serving(start, *arguments) as client:
        yield client


async def test_a_model_larger_than_the_memory_limit_is_mapped(start_server: Start, cell: Path, tmp_path: Path) -> None:
    allow(cell, 160 * MIB)
    layers = range(240)
    large = products(tmp_path / "m0.onnx", *layers)
    assert large.stat().st_size > 1.49 * 160 * MIB
    answer = GIVEN
    for seed in layers:
        answer = answer @ weights(seed)
    async with serving_in(cell, start_server, large) as client:
        assert await client.tier(0) == "mapped"
        for _ in range(3):
            status, document = await client.ask(0)
            assert status == 200
            np.testing.assert_allclose(document["outputs"][0]["data"], answer, rtol=1e-2, atol=1e-6)


async def test_models_give_up_memory_where_the_limit_shrinks(start_server: Start, cell: Path, tmp_path: Path) -> None:
    allow(cell, 1024 * MIB)
    models = [products(tmp_path / f"m{number}.onnx", *range(100 * number, 100 * number + 32)) for number in range(6)]
    async with serving_in(cell, start_server, *models) as client:
        assert [await client.tier(number) for number in range(6)] == ["packed"] * 6
        allow(cell, 360 * MIB)

        async def one_gave_up() -> bool:
            return "evicted" in [await client.tier(number) for number in range(6)]

        await until(one_gave_up)
        for number in range(6):
            assert (await client.ask(number))[0] == 200
