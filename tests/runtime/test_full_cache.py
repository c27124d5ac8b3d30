"""A server whose cache folder is on a disk without room for models to be mapped from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from support.disks import small_disk
from support.products import SIZE, products, weights

MIB = 1 << 20
LAYERS = 8  # of 1 MiB
BUDGET = 40 * MIB  # of which weights may take 35: two to four models, depending on what opening them takes
MODELS = 5
GIVEN = np.linspace(-1, 1, SIZE, dtype=np.float32)
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, SIZE], "data": GIVEN.tolist()}]}

Start = Callable[..., Any]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("many")
    return [
        products(folder / f"m{number}.onnx", *range(100 * number, 100 * number + LAYERS)) for number in range(MODELS)
    ]


async def check(client: aiohttp.ClientSession, number: int) -> None:
    """Asks a model, and holds its answer against the right one."""
    wanted = GIVEN
    for seed in range(100 * number, 100 * number + LAYERS):
        wanted = wanted @ weights(seed)
    async with client.post(f"/v2/models/m{number}/infer", json=BODY) as answer:
        document = await answer.json()
        assert answer.status == 200, document
    np.testing.assert_allclose(document["outputs"][0]["data"], wanted, rtol=1e-3, atol=1e-4)


async def tiers(client: aiohttp.ClientSession) -> list[str]:
    """The tier of each model that the server has."""
    async with client.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    wanted = 'openclaw_model_tier{model="m'
    return [
        line.split('tier="')[1].split('"')[0] for line in lines if line.startswith(wanted) and line.endswith(" 1.0")
    ]


@asynccontextmanager
async def serving(start_server: Start, *arguments: object, cache: Path) -> AsyncIterator[tuple[Any, Any]]:
    """A server, and a client of it."""
    options = ("--memory-budget", BUDGET, "--drain-delay", 0)
    server = await asyncio.to_thread(
        lambda: start_server(*arguments, *options, OPENCLAW_CACHE_DIR=str(cache)).wait_ready()
    )
    async with aiohttp.ClientSession(server.url) as client:
        yield server, client
    assert await asyncio.to_thread(server.stop) == 0
    assert "Traceback" not in server.log


async def test_a_model_that_the_cache_has_no_room_for_is_packed_in_the_place_of_another_and_all_answer(
    start_server: Start, many: list[Path], tmp_path: Path
) -> None:
    # Two models are packed at start, so there are three forms at most; then the disk is full.
    with small_disk(tmp_path / "disk", (3 * LAYERS + 2) * MIB) as disk:
        async with serving(start_server, *many, cache=disk) as (server, client):
            for number in list(range(MODELS)) * 3:
                await check(client, number)
            assert "cannot be mapped: " in server.log
            assert f"bytes in the cache folder {disk} to be mapped from there, and " in server.log
            assert 0 < (await tiers(client)).count("mapped") <= 3


async def test_a_model_that_can_neither_be_packed_nor_mapped_is_refused_and_others_are_served(
    start_server: Start, many: list[Path], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 3 * MIB) as disk:
        arguments = (*many[:2], "--model-control", "--model-folder", many[0].parent)
        async with serving(start_server, *arguments, cache=disk) as (_, client):
            for number in range(2):
                await check(client, number)
            served, refused = [0, 1], []
            for number in range(2, MODELS):
                async with client.post(f"/v2/repository/models/m{number}/load") as answer:
                    if answer.status == 200:
                        served.append(number)
                        await check(client, number)
                    else:
                        assert answer.status == 507
                        refused.append((await answer.json())["error"])
            assert refused
            for told in refused:
                assert "there is no memory to have its weights packed, and m" in told
                assert "needs 8," in told
                assert f"in the cache folder {disk} to be mapped from there" in told
            for number in served * 2:
                await check(client, number)
            assert "mapped" not in await tiers(client)
        assert not list(disk.glob("mapped/*.onnx"))


async def test_a_server_that_cannot_hold_all_of_its_models_nor_map_them_says_so_and_ends(
    start_server: Start, many: list[Path], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 3 * MIB) as disk:
        server = start_server(*many, "--memory-budget", BUDGET, OPENCLAW_CACHE_DIR=str(disk))
        assert await asyncio.to_thread(server.wait) == 78
    told = json.loads((tmp_path / "termination.log").read_text())
    assert told["reason"] == "OutOfMemory"
    assert "needs 8," in told["message"]
    assert f"in the cache folder {disk} to be mapped from there" in told["message"]
    assert "make room, or set OPENCLAW_CACHE_DIR to another folder" in told["message"]
