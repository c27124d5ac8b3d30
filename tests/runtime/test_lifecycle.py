"""A server's life: loading, failing to start, serving, draining."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

ZEROS = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": [0] * 64}]}
INFER = "/v2/models/digits/infer"


def last_words(server: Any, tmp_path: Path) -> dict[str, str]:
    """The failure, which must be the same on stderr and in the termination log."""
    said: dict[str, str] = json.loads(server.log.splitlines()[-1])
    assert json.loads((tmp_path / "termination.log").read_text()) == said
    return said


async def test_while_the_model_loads_the_server_is_live_but_not_ready(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/digits.onnx"
        server = await asyncio.to_thread(start_server, url)
        async with aiohttp.ClientSession(await asyncio.to_thread(lambda: server.url)) as client:
            for path, status in (("/v2/health/live", 200), ("/v2/health/ready", 503), ("/v2/models/digits/ready", 503)):
                async with client.get(path) as answer:
                    assert answer.status == status
            async with client.post(INFER, json=ZEROS) as answer:
                assert (answer.status, await answer.json()) == (503, {"error": "model 'digits' is loading"})
            async with client.get("/metrics") as answer:
                assert 'openclaw_model_ready{model="digits"} 0.0' in await answer.text()
        began = time.monotonic()
        assert await asyncio.to_thread(server.stop) == 0
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("arguments", "reason", "code", "says"),
    [
        (["{models}/missing.onnx"], "ModelNotFound", 78, "there is no file {models}/missing.onnx"),
        (["{models}/truncated.onnx"], "ModelInvalid", 78, "is not an ONNX model, or was cut short"),
        (["{models}/digits.onnx", "--sha256", "0" * 64], "ModelDigestMismatch", 78, "has the SHA-256"),
        (["{models}/two.onnx"], "ModelWarmupFailed", 78, "set model.warmup.requests to 0"),
        (["{silent}/digits.onnx", "--download-timeout", "1"], "ModelDownloadTimeout", 75, "within 1 s"),
        (["{models}/digits.onnx", "--workers", "0"], "ConfigInvalid", 78, "server.workers is 0"),
        (["ftp://host/digits.onnx"], "ConfigInvalid", 78, "scheme 'ftp'; allowed: s3"),
        ([], "ConfigInvalid", 78, "no model is named"),
        (["--config", "{models}/config.json"], "ConfigInvalid", 78, "model.Uri is not a known key"),
        (["{models}/truncated.onnx", "--workers", "2"], "ModelInvalid", 78, "was cut short"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalpha() else "",
)
def test_a_failure_to_start_is_told_with_its_reason(
    start_server: Callable[..., Any],
    models: Any,
    tmp_path: Path,
    *,
    arguments: list[str],
    reason: str,
    code: int,
    says: str,
) -> None:
    (models.folder / "truncated.onnx").write_bytes(models.digits().read_bytes()[:1000])
    (models.folder / "config.json").write_text('{"model": {"name": "x", "Uri": "s3://a/b"}}')
    models.needs_two_rows()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        words = {"models": str(models.folder), "silent": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        server = start_server(*(argument.format(**words) for argument in arguments))
        assert server.wait() == code
    said = last_words(server, tmp_path)
    assert said["reason"] == reason
    assert says.format(**words) in said["message"]
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--thread", "2"], "--threads"),
        (["--port", "x"], "'x' is not a valid integer"),
        (["a", "b", "--name", "c"], "--name is given with 2 models"),
    ],
)
def test_a_wrong_option_is_told_in_the_termination_log(
    start_server: Callable[..., Any], tmp_path: Path, arguments: list[str], *, says: str
) -> None:
    server = start_server(*arguments)
    assert server.wait() == 78
    said = json.loads((tmp_path / "termination.log").read_text())
    assert said["reason"] == "ConfigInvalid"
    assert says in said["message"]


def test_a_port_in_use_is_told(
    start_server: Callable[..., Any], models: Any, tmp_path: Path, *, digits_server: Any
) -> None:
    for workers in (1, 2):
        server = start_server(models.digits(), "--workers", workers, OPENCLAW_PORT=str(digits_server.port))
        assert server.wait() == 78
        assert "Address already in use; choose others with --host and --port" in last_words(server, tmp_path)["message"]


def test_model_path_names_the_model_of_a_plain_deployment(start_server: Callable[..., Any], models: Any) -> None:
    server = start_server("--drain-delay", 0, MODEL_PATH=str(models.digits()), OPENCLAW_LOG_FORMAT="json").wait_ready()
    events = [json.loads(line) for line in server.log.splitlines()]
    assert {"time", "level", "logger", "message"} <= set(events[0])
    assert server.stop() == 0


def test_a_configuration_file_is_served(start_server: Callable[..., Any], models: Any, tmp_path: Path) -> None:
    file = tmp_path / "server.json"
    model = {"name": "named-by-file", "uri": models.digits().as_uri(), "warmup": {"requests": 3}}
    file.write_text(json.dumps({"model": model, "server": {"threads": 1, "drainDelaySeconds": 0}}))
    server = start_server(f"--config={file}").wait_ready()
    assert "warmed up with 3 inference(s)" in server.log
    assert "with 1 thread(s)" in server.log
    assert server.stop() == 0


async def test_the_command_it_prints_works(start_server: Callable[..., Any], models: Any) -> None:
    server = await asyncio.to_thread(lambda: start_server(models.digits(), "--drain-delay", 0).wait_ready())
    command = (await asyncio.to_thread(server.wait_for, r"(curl .*/infer -d '.*')")).group(1)
    process = await asyncio.create_subprocess_shell(f"{command} -sf", stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert json.loads(out)["outputs"][0]["data"] == [0.0] * 10
    assert await asyncio.to_thread(server.stop) == 0


class Load:
    """Clients that ask without pause on kept connections, and stop asking once the server is not ready."""

    def __init__(self, url: str, clients: int = 4) -> None:
        self.answered, self.closes, self.failures = 0, 0, list[str]()
        self._url, self._clients, self._stop = url, clients, asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._clients):
                group.create_task(self._ask())
            group.create_task(self._watch())
            try:
                yield self
            except BaseException:
                self._stop.set()
                raise

    async def at_least(self, answers: int) -> None:
        async with asyncio.timeout(20):
            while self.answered < answers:  # noqa: ASYNC110 - four clients count, one deadline watches
                await asyncio.sleep(0.01)

    async def _ask(self) -> None:
        async with aiohttp.ClientSession(self._url) as client:
            while not self._stop.is_set():
                try:
                    async with client.post(INFER, json=ZEROS) as answer:
                        await answer.read()
                        self.closes += answer.headers.get("Connection", "").lower() == "close"
                        if answer.status == 200:
                            self.answered += 1
                        else:
                            self.failures.append(f"status {answer.status}")
                except aiohttp.ClientError as error:
                    self.failures.append(repr(error))

    async def _watch(self) -> None:
        """What a load balancer does: takes the server out some time after it says that it is not ready."""
        async with aiohttp.ClientSession(self._url) as client:
            ready = True
            while ready:
                await asyncio.sleep(0.1)
                async with client.get("/v2/health/ready") as answer:
                    ready = answer.status == 200
        await asyncio.sleep(0.5)
        self._stop.set()


@pytest.mark.parametrize("workers", [1, 2])
async def test_no_request_fails_when_a_server_under_load_is_stopped(
    start_server: Callable[..., Any], models: Any, workers: int
) -> None:
    server = await asyncio.to_thread(
        lambda: start_server(models.digits(), "--drain-delay", 2, "--workers", workers).wait_ready()
    )
    async with Load(server.url).running() as load:
        await load.at_least(50)
        server.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(server.wait) == 0
    assert load.failures == []
    assert load.closes > 0, "draining answers must ask clients to hang up"
    assert "Traceback" not in server.log


def slow_request(rows: int) -> tuple[bytes, dict[str, str]]:
    blob = np.zeros((rows, 1024), np.float32).tobytes()
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 1024], "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + blob, {"Inference-Header-Content-Length": str(len(head))}


@asynccontextmanager
async def in_flight(server: Any, rows: int) -> AsyncIterator[asyncio.Task[int]]:
    """A request that runs in the model when the body of the ``async with`` begins."""
    body, headers = slow_request(rows)
    url = await asyncio.to_thread(lambda: server.url)
    async with aiohttp.ClientSession(url) as client:

        async def ask() -> int:
            async with client.post("/v2/models/slow/infer", data=io.BytesIO(body), headers=headers) as answer:
                await answer.read()
                return answer.status

        task = asyncio.create_task(ask())
        async with asyncio.timeout(20):
            while True:
                async with client.get("/metrics") as answer:
                    if 'openclaw_requests_in_flight{model="slow"} 1.0' in await answer.text():
                        break
        yield task


async def test_what_is_in_flight_is_finished_before_the_end(start_server: Callable[..., Any], models: Any) -> None:
    model = models.slow(1024, 60)
    server = await asyncio.to_thread(lambda: start_server(model, "--name", "slow", "--drain-delay", 0).wait_ready())
    async with in_flight(server, 512) as request:
        server.process.send_signal(signal.SIGTERM)
        assert not request.done()
        assert await request == 200
    assert await asyncio.to_thread(server.wait) == 0


async def test_what_does_not_finish_in_time_does_not_hold_the_end(
    start_server: Callable[..., Any], models: Any
) -> None:
    options = ("--name", "slow", "--drain-delay", 0, "--drain-timeout", 0)
    model = models.slow(1024, 100)
    server = await asyncio.to_thread(lambda: start_server(model, *options).wait_ready())
    async with in_flight(server, 4096) as request:
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.wait, 10) == 0
        with pytest.raises(aiohttp.ClientError):
            await request


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_sigterm_skips_the_delay(start_server: Callable[..., Any], models: Any, workers: int) -> None:
    server = start_server(models.digits(), "--drain-delay", 60, "--workers", workers).wait_ready()
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("stopping: still answering for 60 s")
    server.process.send_signal(signal.SIGTERM)
    assert server.wait(10) == 0
