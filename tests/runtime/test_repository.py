"""Several models in one server: found, loaded, replaced and unloaded while requests come."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from yarl import URL

DIGITS = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": [1.0] * 64}]}
PAIR = {
    "inputs": [
        {"name": "a", "datatype": "INT64", "shape": [2], "data": [5, 6]},
        {"name": "b", "datatype": "INT64", "shape": [2], "data": [3, 3]},
    ]
}


def scores(factor: float) -> float:
    """The first score of DIGITS by a digits model of that factor."""
    weights = np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32) * np.float32(factor)
    return float((np.ones((1, 64), np.float32) @ weights)[0, 0])


async def post(client: aiohttp.ClientSession, path: str, body: Any = None) -> tuple[int, Any]:
    async with client.post(path, json=body) as answer:
        return answer.status, await answer.json()


async def get(client: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    async with client.get(path) as answer:
        return answer.status, await answer.json()


async def first_score(client: aiohttp.ClientSession, path: str = "/v2/models/digits/infer") -> float:
    status, document = await post(client, path, DIGITS)
    assert status == 200, document
    return float(document["outputs"][0]["data"][0])


@pytest.fixture
async def controlled(start_server: Callable[..., Any], models: Any, tmp_path: Path) -> Any:
    """A server whose models clients may load, and the folder that they may load from."""
    shutil.copy(models.digits(), tmp_path / "digits.onnx")
    server = await asyncio.to_thread(
        lambda: start_server(
            tmp_path / "digits.onnx", "--model-control", "--model-folder", tmp_path, "--drain-delay", 0
        ).wait_ready()
    )
    async with aiohttp.ClientSession(server.url) as client:
        yield client, tmp_path
    assert await asyncio.to_thread(server.stop) == 0


async def test_several_models_answer_side_by_side(start_server: Callable[..., Any], models: Any) -> None:
    server = await asyncio.to_thread(
        lambda: start_server(models.digits(), models.pair(), "--drain-delay", 0).wait_ready()
    )
    async with aiohttp.ClientSession(server.url) as client:
        assert await get(client, "/v2/models") == (200, {"models": ["digits", "pair"]})
        assert await first_score(client) == pytest.approx(scores(1.0), rel=1e-5)
        status, document = await post(client, "/v2/models/pair/infer", PAIR)
        assert [output["data"] for output in document["outputs"]] == [[8, 9], [2, 3]]
        assert await get(client, "/v2/models/pair/ready") == (200, {"name": "pair", "ready": True})
        status, document = await get(client, "/v2/models/letters")
        assert (status, document["error"]) == (404, "there is no model 'letters'; served here: 'digits', 'pair'")
    assert await asyncio.to_thread(server.stop) == 0


async def test_clients_may_not_load_models_unless_they_are_allowed_to(digits_server: Any) -> None:
    async with aiohttp.ClientSession(digits_server.url) as client:
        for verb in ("load", "unload"):
            status, document = await post(client, f"/v2/repository/models/digits/{verb}")
            assert status == 501
            assert "--model-control" in document["error"]
        status, index = await post(client, "/v2/repository/index")
        assert index == [{"name": "digits", "version": "1", "state": "READY", "reason": ""}]


async def test_a_model_is_loaded_and_unloaded_by_name(controlled: Any, models: Any) -> None:
    client, folder = controlled
    shutil.copy(models.pair(), folder / "pair.onnx")
    assert await post(client, "/v2/repository/models/pair/load") == (200, {})
    assert (await post(client, "/v2/models/pair/infer", PAIR))[0] == 200
    assert await post(client, "/v2/repository/models/pair/unload") == (200, {})
    status, document = await post(client, "/v2/models/pair/infer", PAIR)
    assert (status, document["error"]) == (503, "model 'pair' is unavailable: unloaded")
    assert await first_score(client) == pytest.approx(scores(1.0), rel=1e-5)
    index = (await post(client, "/v2/repository/index"))[1]
    assert {each["name"]: each["state"] for each in index} == {"digits": "READY", "pair": "UNAVAILABLE"}
    assert [each["name"] for each in (await post(client, "/v2/repository/index", {"ready": True}))[1]] == ["digits"]


async def test_the_highest_version_of_a_folder_is_taken(controlled: Any, models: Any) -> None:
    client, folder = controlled
    for version, factor in (("9", 2.0), ("10", 3.0), ("latest", 4.0)):
        (folder / "letters" / version).mkdir(parents=True)
        shutil.copy(models.digits(factor), folder / "letters" / version / "model.onnx")
    assert await post(client, "/v2/repository/models/letters/load") == (200, {})
    assert await first_score(client, "/v2/models/letters/infer") == pytest.approx(scores(3.0), rel=1e-5)


@pytest.mark.parametrize("name", ["letters", "a%20b", "..%2Fdigits", "%2E%2E%2Fdigits", "x" * 300])
async def test_a_name_that_the_folder_does_not_have_is_unknown(controlled: Any, name: str) -> None:
    client, _ = controlled
    async with client.post(URL(f"/v2/repository/models/{name}/load", encoded=True)) as answer:
        assert answer.status == 404
        assert "there is no" in (await answer.json())["error"]


async def test_a_model_is_replaced_under_load_without_a_failed_request(controlled: Any, models: Any) -> None:
    client, folder = controlled
    before, after = pytest.approx(scores(1.0), rel=1e-5), pytest.approx(scores(2.0), rel=1e-5)
    seen: list[float] = []
    done = asyncio.Event()

    async def ask() -> None:
        while not done.is_set():
            seen.append(await first_score(client))

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(ask())
        shutil.copy(models.digits(2.0), folder / "digits.onnx")
        assert await post(client, "/v2/repository/models/digits/load") == (200, {})
        done.set()
    assert await first_score(client) == after
    assert all(score in (before, after) for score in seen)
    assert seen[0] == before
    assert (await get(client, "/v2/models/digits"))[1]["versions"] == ["2"]
    status, document = await post(client, "/v2/models/digits/versions/1/infer", DIGITS)
    assert (status, document["error"]) == (404, "model 'digits' has no version '1'; it has: '2'")


async def test_a_version_that_cannot_be_loaded_leaves_the_one_that_serves(controlled: Any, models: Any) -> None:
    client, folder = controlled
    (folder / "digits.onnx").write_bytes(models.digits().read_bytes()[:100])
    status, document = await post(client, "/v2/repository/models/digits/load")
    assert status == 400
    assert "was cut short" in document["error"]
    assert await first_score(client) == pytest.approx(scores(1.0), rel=1e-5)
    assert (await get(client, "/v2/models/digits/ready"))[0] == 200


async def test_loads_and_unloads_at_once_end_in_one_state(controlled: Any, models: Any) -> None:
    client, _ = controlled
    verbs = ["load", "unload", "load", "unload", "load"]
    answers = await asyncio.gather(*(post(client, f"/v2/repository/models/digits/{verb}") for verb in verbs))
    assert [status for status, _ in answers] == [200] * 5
    assert await post(client, "/v2/repository/models/digits/load") == (200, {})
    assert await first_score(client) == pytest.approx(scores(1.0), rel=1e-5)


async def test_statistics_count_what_was_asked(controlled: Any) -> None:
    client, _ = controlled
    for _ in range(3):
        await first_score(client)
    bad = {"inputs": [{"name": "picture", "datatype": "FP32", "shape": [1], "data": [1]}]}
    assert (await post(client, "/v2/models/digits/infer", bad))[0] == 400
    document = (await get(client, "/v2/models/digits/stats"))[1]
    (stats,) = document["model_stats"]
    assert (stats["name"], stats["version"], stats["tier"], stats["inference_count"]) == ("digits", "1", "packed", 3)
    assert stats["inference_stats"]["success"]["count"] == 3
    assert stats["inference_stats"]["fail"]["count"] == 1
    assert stats["execution_count"] == sum(batch["compute_infer"]["count"] for batch in stats["batch_stats"])
    assert await get(client, "/v2/models/stats") == (200, document)


async def lively(url: str) -> bool:
    """Whether any worker says that it is live, by a connection each: the kernel chooses the worker of each."""
    for _ in range(8):
        async with aiohttp.ClientSession(url) as client:
            if await get(client, "/v2/health/live") == (200, {"live": True}):
                return True
    return False


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_run_that_never_ends_fails_the_liveness_probe_whichever_worker_is_asked(
    start_server: Callable[..., Any], models: Any, tmp_path: Path, workers: int
) -> None:
    config = tmp_path / "server.json"
    model = {"name": "slow", "uri": models.slow(512, 4000).as_uri(), "warmup": {"requests": 0}}
    server_options = {"maxInferenceSeconds": 1, "drainDelaySeconds": 0, "drainTimeoutSeconds": 0, "workers": workers}
    config.write_text(json.dumps({"model": model | {"batching": {"maxBatchSize": 1}}, "server": server_options}))
    server = await asyncio.to_thread(lambda: start_server("--config", config).wait_ready())
    rows = 4096
    size = rows * 512 * 4
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 512], "parameters": {"binary_data_size": size}}
    header = json.dumps({"inputs": [tensor]}).encode()
    async with aiohttp.ClientSession(server.url) as client:
        headers = {"Inference-Header-Content-Length": str(len(header))}
        body = io.BytesIO(header + bytes(size))
        stuck = asyncio.ensure_future(client.post("/v2/models/slow/infer", data=body, headers=headers))
        async with asyncio.timeout(20):
            while await lively(server.url):  # noqa: ASYNC110 - another process's
                await asyncio.sleep(0.05)
        stuck.cancel()
        await asyncio.gather(stuck, return_exceptions=True)
    assert await asyncio.to_thread(server.stop) == 0
