"""Several worker processes behind one port."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import pytest
from tritonclient.grpc.aio import InferenceServerClient, InferInput

from openclaw.config import parse
from openclaw.errors import ModelInvalid
from openclaw.serving.counters import SharedCounters
from openclaw.serving.forking import Forks, started
from openclaw.serving.forkserver import MESSAGE_BYTES
from support.waiting import until

ZEROS = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": [0] * 64}]}
INFER = "/v2/models/digits/infer"
LIVE, READY = "/v2/health/live", "/v2/health/ready"
COUNTED = 'openclaw_requests_total{code="200",model="digits",protocol="rest",version="1"}'


@pytest.fixture
async def server(start_server: Callable[..., Any], models: Any) -> AsyncIterator[Any]:
    server = start_server(models.digits(), "--workers", 2, "--drain-delay", 0).wait_ready()
    yield server
    children = psutil.Process(server.process.pid).children(recursive=True) if server.process.poll() is None else []
    assert server.stop() == 0
    await until(lambda: all(map(has_ended, children)), deadline=5)


def has_ended(process: psutil.Process) -> bool:
    """Whether it runs no more. Who collects it is not ours to say: it may be the machine's init, in its own time."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def workers_of(server: Any) -> list[psutil.Process]:
    (fork_server,) = psutil.Process(server.process.pid).children()
    return fork_server.children()


async def ask(url: str, times: int) -> None:
    for _ in range(times):
        # A connection each: the kernel chooses the worker when it is opened.
        async with aiohttp.ClientSession(url) as client, client.post(INFER, json=ZEROS) as answer:
            assert answer.status == 200


async def sample(url: str, name: str) -> float:
    async with aiohttp.ClientSession(url) as client, client.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " "))


async def published(url: str, count: int) -> None:
    """Waits until every worker has shown the others what it counted."""
    async with asyncio.timeout(10):
        while {await sample(url, COUNTED) for _ in range(6)} != {count}:  # noqa: ASYNC110 - other processes'
            await asyncio.sleep(0.02)


async def test_metrics_are_the_sum_of_the_workers_whoever_is_asked(server: Any) -> None:
    await ask(server.url, 30)
    await published(server.url, 30)
    assert {await sample(server.url, COUNTED) for _ in range(6)} == {30.0}
    assert await sample(server.url, 'openclaw_inference_duration_seconds_count{model="digits"}') == 30
    assert await sample(server.url, 'openclaw_model_ready{model="digits"}') == 1
    assert await sample(server.url, 'openclaw_requests_in_flight{model="digits"}') == 0


async def test_a_worker_that_dies_is_replaced_and_its_counts_stay(server: Any) -> None:
    await ask(server.url, 10)
    await published(server.url, 10)
    before = {worker.pid for worker in workers_of(server)}
    victim = min(before)
    psutil.Process(victim).kill()
    await asyncio.to_thread(server.wait_for, rf"worker {victim} ended with exit code -9; it is started again")
    await ask(server.url, 10)
    await asyncio.to_thread(server.wait_for, r"worker \d+ answers again")
    after = {worker.pid for worker in workers_of(server)}
    assert len(after) == 2
    assert len(after & before) == 1
    await published(server.url, 20)


async def health(url: str, path: str) -> int:
    """The status of a health path on a connection of its own; 0: nobody answers."""
    timeout = aiohttp.ClientTimeout(total=0.5)
    try:
        async with aiohttp.ClientSession(url, timeout=timeout) as client, client.get(path) as answer:
            return answer.status
    except (aiohttp.ClientError, TimeoutError):
        return 0


async def test_a_worker_whose_event_loop_stands_still_fails_the_liveness_probe_of_all(
    start_server: Callable[..., Any], models: Any, tmp_path: Path
) -> None:
    config = tmp_path / "server.json"
    options = {"workers": 2, "maxInferenceSeconds": 1, "drainDelaySeconds": 0}
    config.write_text(json.dumps({"model": {"name": "digits", "uri": models.digits().as_uri()}, "server": options}))
    server = await asyncio.to_thread(lambda: start_server("--config", config).wait_ready())
    assert {await health(server.url, LIVE) for _ in range(6)} == {200}
    stopped = workers_of(server)[0]
    stopped.suspend()
    try:
        # Half of the connections reach the worker that says nothing.
        await seen(server.url, LIVE, 503)
        assert 200 not in {await health(server.url, LIVE) for _ in range(6)}
    finally:
        stopped.resume()
    await seen(server.url, LIVE, 200)
    assert await asyncio.to_thread(server.stop) == 0


async def seen(url: str, path: str, status: int) -> None:
    """Waits until a health path has this status."""
    async with asyncio.timeout(20):
        while await health(url, path) != status:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.02)


async def test_every_worker_answers_an_inference_before_it_listens_also_one_that_replaces_another(server: Any) -> None:
    warm = re.compile(r"warmed up with 1 inference")
    assert len(warm.findall(server.log)) >= 2
    before = len(warm.findall(server.log))
    workers_of(server)[0].kill()
    await asyncio.to_thread(server.wait_for, r"worker \d+ answers again")
    assert len(warm.findall(server.log)) == before + 1


async def test_requests_of_a_worker_that_is_killed_end_at_once_and_the_others_answer(
    start_server: Callable[..., Any], models: Any
) -> None:
    slow = models.slow(512, 400)
    server = await asyncio.to_thread(
        lambda: start_server(
            slow, "--name", "slow", "--workers", 2, "--threads", 1, "--max-batch-size", 1, "--drain-delay", 0
        ).wait_ready()
    )
    rows = 4096
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 512], "parameters": {"binary_data_size": rows * 2048}}
    header = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(header))}
    async with aiohttp.ClientSession(server.url) as client:
        asked = asyncio.ensure_future(
            client.post("/v2/models/slow/infer", data=io.BytesIO(header + bytes(rows * 2048)), headers=headers)
        )
        in_flight = 'openclaw_requests_in_flight{model="slow"}'
        async with asyncio.timeout(20):
            while await sample(server.url, in_flight) != 1:  # noqa: ASYNC110 - another process's
                await asyncio.sleep(0.02)
        (busy,) = [each for each in workers_of(server) if any(used.status == "ESTABLISHED" for used in served(each))]
        busy.kill()
        with pytest.raises(aiohttp.ClientError):
            async with asyncio.timeout(5):
                await asked
    await seen(server.url, READY, 200)
    await asyncio.to_thread(server.wait_for, r"worker \d+ answers again")
    async with asyncio.timeout(20):
        while await sample(server.url, in_flight) != 0:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.02)
    assert await asyncio.to_thread(server.stop) == 0


def served(process: psutil.Process) -> list[Any]:
    """Connections to its port."""
    return [each for each in process.net_connections(kind="tcp") if each.raddr]


async def test_a_server_without_any_worker_is_not_ready_until_one_is_back(server: Any) -> None:
    for worker in workers_of(server):
        worker.suspend()
    for worker in workers_of(server):
        worker.kill()
    assert await health(server.url, READY) != 200
    await asyncio.to_thread(server.wait_for, r"worker \d+ answers again")
    await seen(server.url, READY, 200)


async def test_no_worker_outlives_its_parent(start_server: Callable[..., Any], models: Any) -> None:
    server = await asyncio.to_thread(lambda: start_server(models.digits(), "--workers", 2).wait_ready())
    workers = workers_of(server)
    assert len(workers) == 2
    server.process.kill()
    await until(lambda: all(map(has_ended, workers)), deadline=10)


async def test_a_worker_that_is_asked_to_stop_drains_and_is_replaced(server: Any) -> None:
    victim = workers_of(server)[0]
    victim.send_signal(signal.SIGTERM)
    await asyncio.to_thread(server.wait_for, rf"worker {victim.pid} ended with exit code 0")
    await asyncio.to_thread(server.wait_for, r"worker \d+ answers again")
    await ask(server.url, 4)


async def test_workers_share_the_weights_of_a_model(start_server: Callable[..., Any], models: Any) -> None:
    size = 4096
    weights = size * size * 4
    server = await asyncio.to_thread(
        lambda: start_server(
            models.slow(size, 1), "--workers", 2, "--threads", 1, "--max-batch-size", 1, "--drain-delay", 0
        ).wait_ready()
    )
    own = [worker.memory_full_info().uss for worker in workers_of(server)]
    shared = [worker.memory_info().rss for worker in workers_of(server)]
    assert min(shared) > weights
    assert max(own) < weights
    assert await asyncio.to_thread(server.stop) == 0


async def test_workers_answer_grpc_on_one_port(start_server: Callable[..., Any], models: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = await asyncio.to_thread(
        lambda: start_server(models.digits(), "--workers", 2, "--grpc-port", port, "--drain-delay", 0).wait_ready()
    )
    image = InferInput("image", [1, 64], "FP32")
    image.set_data_from_numpy(np.zeros((1, 64), np.float32))
    for _ in range(8):
        async with InferenceServerClient(f"127.0.0.1:{port}") as client:
            assert (await client.infer("digits", [image])).as_numpy("scores").tolist() == [[0.0] * 10]
    assert await asyncio.to_thread(server.stop) == 0


async def test_a_fork_server_that_dies_is_replaced_when_a_worker_is_needed(server: Any) -> None:
    (fork_server,) = psutil.Process(server.process.pid).children()
    workers = fork_server.children()
    fork_server.kill()
    await ask(server.url, 4)
    workers[0].kill()
    await asyncio.to_thread(server.wait_for, rf"worker {workers[0].pid} ended")
    await asyncio.to_thread(server.wait_for, r"worker \d+ answers again")
    await ask(server.url, 8)
    for worker in workers:
        if worker.is_running():
            worker.terminate()
    await until(lambda: all(map(has_ended, workers)), deadline=10)


def test_a_fork_server_ends_quietly_when_its_parent_left_without_reading_everything(models: Any) -> None:
    config = parse({"model": {"name": "digits", "uri": models.digits().as_uri()}})
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    counters = SharedCounters(1)
    document = json.dumps(config.model_dump(mode="json", by_alias=True))
    command = [sys.executable, "-m", "openclaw.serving.forkserver", str(theirs.fileno())]
    with ours, theirs:
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True)
        theirs.close()
        socket.send_fds(ours, [f"load {document}".encode()], [counters.descriptor])
        ours.settimeout(30)
        assert json.loads(ours.recv(MESSAGE_BYTES, socket.MSG_PEEK)) == {"loaded": True}
    # What was only peeked at is unread, so the other end is reset and not merely closed.
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in said


async def test_a_fork_server_ends_that_nobody_needs() -> None:
    process = started()
    await process.stop()
    assert await process.wait() == 0


async def test_a_fork_server_takes_a_long_configuration_and_tells_what_is_wrong_with_a_model(
    models: Any, tmp_path: Path
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    others = [{"name": f"digits{number}", "uri": models.digits().as_uri()} for number in range(200)]
    config = parse(
        {
            "model": {"name": "broken", "uri": (tmp_path / "broken.onnx").as_uri()},
            "models": others,
            "server": {"workers": 2, "threads": 1},
        }
    )
    process = started()
    forks = Forks.start(process, config, counters=SharedCounters(2))
    with pytest.raises(ModelInvalid, match=r"broken\.onnx \(8 bytes\) is not an ONNX model"):
        await forks.loaded()
    await until(lambda: not forks.alive)
    assert await process.wait() == ModelInvalid.exit_code
    await forks.stop()


async def test_the_parent_shares_with_its_workers_what_it_imported(
    start_server: Callable[..., Any], models: Any
) -> None:
    alone, several = await asyncio.to_thread(
        lambda: [start_server(models.digits(), "--workers", number).wait_ready() for number in (1, 2)]
    )
    own = psutil.Process(several.process.pid).memory_full_info().uss
    assert own < psutil.Process(alone.process.pid).memory_full_info().uss / 2
