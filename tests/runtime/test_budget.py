"""A server with little memory: who asks for more than there is is told so before its body is read, and nobody else."""

from __future__ import annotations

import asyncio
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import numpy as np
import onnx
import psutil
import pytest
from benchmarks.memory.groups import allow
from onnx import helper, numpy_helper

from grpcserving.calls import message, model_infer, refused
from optimizer import models
from support.groups import inside
from support.waiting import until

MIB = 2**20
BUDGET = 23 * MIB
ROWS = 16_000
"""Of 256 bytes each: with its JSON, a body is counted as 4 MiB."""
INFER = "/v2/models/digits/infer"
LENGTH = "Inference-Header-Content-Length"
HEAD = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [ROWS, 64]}]}


@pytest.fixture
def server(start_server: Callable[..., Any], models: Any) -> Any:
    arguments = ("--memory-budget", "23MiB", "--drain-delay", 0, "--grpc-port", 0)
    return start_server(models.digits(), *arguments).wait_ready()


class Body:
    """A large request in binary: one value throughout, and what the model makes of it."""

    def __init__(self, value: float, weights: np.ndarray[Any, Any]) -> None:
        image = np.full((ROWS, 64), value, np.float32)
        tensor = {**HEAD["inputs"][0], "parameters": {"binary_data_size": image.nbytes}}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        self.bytes = head + image.tobytes()
        self.headers = {LENGTH: str(len(head))}
        self.expected = (image[:1] @ weights)[0]

    def is_right(self, answer: bytes, header_length: int) -> bool:
        scores = np.frombuffer(answer[header_length:], np.float32).reshape(ROWS, 10)
        return bool(np.allclose(scores, self.expected, rtol=1e-3))


@pytest.fixture
def weights() -> np.ndarray[Any, Any]:
    """Of the digits model."""
    return np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32)


class Sender:
    """A client that sends a head, and its body when it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: Body) -> None:
        self.reader, self.writer, self.body = reader, writer, body

    @classmethod
    async def begin(cls, port: int, body: Body) -> Sender:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = [f"POST {INFER} HTTP/1.1", "Host: x", f"Content-Length: {len(body.bytes)}"]
        lines += [f"{name}: {value}" for name, value in body.headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        return cls(reader, writer, body)

    def go_on(self) -> None:
        self.writer.write(self.body.bytes)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        return int(lines[0].split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


async def metric(client: aiohttp.ClientSession, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    async with client.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.partition("{")[0].partition(" ")[0] == name and all(each in line for each in wanted)
    )


async def buffers(client: aiohttp.ClientSession) -> float:
    """Bytes that requests hold."""
    return await metric(client, "openclaw_memory_bytes", pool="objects", state="used")


async def test_a_body_that_does_not_fit_is_refused_before_it_is_sent_and_what_is_in_flight_goes_on(
    server: Any, weights: np.ndarray[Any, Any]
) -> None:
    async with asyncio.timeout(30), aiohttp.ClientSession(server.url) as client:
        fit = 5
        senders = [await Sender.begin(server.port, Body(number + 1, weights)) for number in range(fit)]
        await until(lambda: _holds(client, fit * 4 * MIB))
        late = await Sender.begin(server.port, Body(9, weights))
        status, headers, said = await late.answer()
        assert status == 503
        assert int(headers["retry-after"]) >= 1
        assert b"bytes of memory are needed" in said
        assert await metric(client, "openclaw_requests_shed_total", model="digits", reason="memory") == 1
        assert await metric(client, "openclaw_requests_total", model="digits", code="503") == 1
        # A small request is none of this.
        small = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": [0.0] * 64}]}
        async with client.post(INFER, json=small) as answer:
            assert answer.status == 200
        for sender in senders:
            sender.go_on()
        for sender in senders:
            status, headers, said = await sender.answer()
            assert status == 200
            assert sender.body.is_right(said, int(headers[LENGTH.lower()]))
        await until(lambda: _holds(client, 0))
        again = await Sender.begin(server.port, Body(9, weights))
        again.go_on()
        assert (await again.answer())[0] == 200
        for sender in (*senders, late, again):
            await sender.close()


async def _holds(client: aiohttp.ClientSession, size: int) -> bool:
    return await buffers(client) == size


async def test_a_client_that_hangs_up_in_its_body_leaves_no_memory_behind(
    server: Any, weights: np.ndarray[Any, Any]
) -> None:
    async with asyncio.timeout(30), aiohttp.ClientSession(server.url) as client:
        sender = await Sender.begin(server.port, Body(1, weights))
        sender.writer.write(sender.body.bytes[: 2 * MIB])
        await until(lambda: _holds(client, 4 * MIB))
        sender.writer.transport.abort()
        await until(lambda: _holds(client, 0))


async def test_under_load_everyone_is_answered_or_told_to_come_again(
    server: Any, weights: np.ndarray[Any, Any]
) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    statuses: Counter[int] = Counter()
    most = 0.0

    async def ask(number: int) -> None:
        body = Body(number % 7 + 1, weights)
        for _ in range(6):
            # A connection each: a refusal ends the one that it is said on.
            async with aiohttp.ClientSession(server.url) as client:
                with suppress(aiohttp.ClientOSError):
                    async with client.post(INFER, data=io.BytesIO(body.bytes), headers=body.headers) as answer:
                        said = await answer.read()
                        statuses[answer.status] += 1
                        if answer.status == 200:
                            assert body.is_right(said, int(answer.headers[LENGTH]))
                        else:
                            assert "Retry-After" in answer.headers

    async with asyncio.timeout(60), aiohttp.ClientSession(server.url) as client:
        asking = asyncio.gather(*(ask(number) for number in range(16)))
        while not asking.done():
            most = max(most, await metric(client, "openclaw_memory_bytes", pool="objects"))
        await asking
        assert set(statuses) <= {200, 503}
        assert statuses[200] >= 16
        assert most <= BUDGET
        await until(lambda: _holds(client, 0))
        refusals = await metric(client, "openclaw_requests_shed_total", model="digits", reason="memory")
        assert refusals >= statuses[503]
        # What the interpreter needs besides is not a buffer of ours.
        assert process.memory_info().rss - before < BUDGET + 48 * MIB
        assert server.process.poll() is None


async def test_a_body_that_can_never_fit_is_told_so(server: Any) -> None:
    async with asyncio.timeout(30), aiohttp.ClientSession(server.url) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {30 * MIB}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 413")
        assert b"server.memoryBudgetBytes is 24,117,248" in await reader.read()
        writer.close()
        # In text, its numbers become objects: eight bytes for each.
        numbers = ", ".join(["0.125"] * (4 * MIB // 7))
        text = f'{{"inputs": [{{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": [{numbers}]}}]}}'
        async with client.post(INFER, data=io.BytesIO(text.encode())) as answer:
            assert answer.status == 413
            assert "server.memoryBudgetBytes" in (await answer.json())["error"]


async def test_what_a_packed_body_becomes_is_counted(server: Any) -> None:
    async with asyncio.timeout(30), aiohttp.ClientSession(server.url) as client:
        packed = zlib.compress(bytes(40 * MIB))
        assert len(packed) < 64 * 1024
        async with client.post(INFER, data=packed, headers={"Content-Encoding": "deflate"}) as answer:
            assert answer.status in {413, 503}
        await until(lambda: _holds(client, 0))


async def test_a_message_that_does_not_fit_ends_its_call_and_no_other(
    server: Any, weights: np.ndarray[Any, Any]
) -> None:
    port = int(server.wait_for(r"gRPC on port (\d+)").group(1))
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    held = [await Sender.begin(server.port, Body(1, weights)) for _ in range(5)]
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession(server.url) as client,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel,
    ):
        await until(lambda: _holds(client, 20 * MIB))
        infer = model_infer(channel)
        large = message(np.ones((20_000, 64), np.float32))
        error = await refused(infer(large))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "bytes of memory are needed" in str(error.details())
        assert "retry-after" in {key for key, _ in error.trailing_metadata() or ()}
        await infer(message())
        for sender in held:
            await sender.close()
        await until(lambda: _holds(client, 0))
        await infer(large)
        await until(lambda: _holds(client, 0))
        assert await metric(client, "openclaw_requests_shed_total", model="digits", reason="memory") == 1


class Wide:
    """A model of 1 MiB of output for every row: its only number, 262,144 times."""

    def __init__(self, folder: Path) -> None:
        ends = [models.tensor(name, "N", size) for name, size in (("x", 1), ("y", MIB // 4))]
        ones = numpy_helper.from_array(np.ones((1, MIB // 4), np.float32), "w")
        product = helper.make_node("MatMul", ["x", "w"], ["y"])
        self.path = folder / "wide.onnx"
        onnx.save(models.made([product], ends[:1], ends[1:], weights=[ones]), self.path)

    @staticmethod
    def request(rows: int) -> dict[str, Any]:
        x = {"name": "x", "datatype": "FP32", "shape": [rows, 1], "data": list(range(rows))}
        return {"inputs": [x], "parameters": {"binary_data_output": True}}

    @staticmethod
    def is_right(answer: bytes, header_length: int, rows: int) -> bool:
        y = np.frombuffer(answer[header_length:], np.float32).reshape(rows, MIB // 4)
        return bool((y == np.arange(rows)[:, None]).all())


async def test_an_output_that_does_not_fit_is_refused_before_the_run_and_answers_on_their_way_go_on(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    wide = Wide(tmp_path)
    server = start_server(wide.path, "--memory-budget", "40MiB", "--drain-delay", 0).wait_ready()
    url = "/v2/models/wide/infer"
    async with (
        asyncio.timeout(60),
        aiohttp.ClientSession(server.url) as client,
        aiohttp.ClientSession(server.url) as late,
    ):
        # More than sockets hold, so it is in the server until it is read.
        async with client.post(url, json=wide.request(24)) as answer:
            assert answer.status == 200
            async with late.post(url, json=wide.request(20)) as refusal:
                assert refusal.status == 503
                assert "Retry-After" in refusal.headers
                assert "bytes of memory are needed" in (await refusal.json())["error"]
            assert await metric(late, "openclaw_requests_shed_total", model="wide", reason="memory") == 1
            async with late.post(url, json=wide.request(2)) as small:
                assert wide.is_right(await small.read(), int(small.headers[LENGTH]), 2)
            assert wide.is_right(await answer.read(), int(answer.headers[LENGTH]), 24)
        await until(lambda: _holds(client, 0))
        async with late.post(url, json=wide.request(20)) as again:
            assert wide.is_right(await again.read(), int(again.headers[LENGTH]), 20)
        async with late.post(url, json=wide.request(48)) as never:
            assert never.status == 413
            assert "server.memoryBudgetBytes is 41,943,040" in (await never.json())["error"]


async def test_workers_share_one_budget(
    start_server: Callable[..., Any], models: Any, weights: np.ndarray[Any, Any]
) -> None:
    arguments = ("--memory-budget", "64MiB", "--drain-delay", 0, "--workers", 2)
    server = start_server(models.digits(), *arguments).wait_ready()
    async with asyncio.timeout(60), aiohttp.ClientSession(server.url) as client:
        # The kernel chooses the worker; whichever it is, what the other one holds counts as well.
        senders = [await Sender.begin(server.port, Body(number + 1, weights)) for number in range(24)]

        async def all_told() -> bool:
            shed = await metric(client, "openclaw_requests_shed_total", reason="memory")
            return await buffers(client) == (len(senders) - shed) * 4 * MIB

        await until(all_told)
        assert 4 * MIB <= await buffers(client) <= 64 * MIB
        assert await metric(client, "openclaw_memory_budget_bytes") == 64 * MIB
        for sender in senders:
            await sender.close()
        await until(lambda: _holds(client, 0))
    assert server.stop() == 0


async def test_workers_follow_a_limit_that_shrinks(start_server: Callable[..., Any], models: Any, cell: Path) -> None:
    weights = np.ones((64, 10), np.float32)
    allow(cell, 1024 * MIB)
    with inside(cell):
        server = start_server(models.digits(), "--workers", 2, "--threads", 1, "--drain-delay", 0)
    server.wait_ready()
    async with asyncio.timeout(60), aiohttp.ClientSession(server.url) as client:
        # Their bodies are still to come, so they take no memory yet that the group would count.
        senders = [await Sender.begin(server.port, Body(number + 1, weights)) for number in range(40)]
        await until(lambda: _holds(client, 40 * 4 * MIB))
        allow(cell, 240 * MIB)

        async def followed() -> bool:
            return await metric(client, "openclaw_memory_budget_bytes") == 120 * MIB

        await until(followed)
        late = await Sender.begin(server.port, Body(1, weights))
        assert (await late.answer())[0] == 503
        senders[0].go_on()
        assert (await senders[0].answer())[0] == 200
        for sender in (*senders, late):
            await sender.close()
        await until(lambda: _holds(client, 0))
        again = await Sender.begin(server.port, Body(1, weights))
        again.go_on()
        assert (await again.answer())[0] == 200
        await again.close()
    assert server.stop() == 0
