"""Receiving, reading and answering go on while the model's thread is taken, and copy no large body."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from openclaw.config import ModelConfig
from openclaw.execute.session import Array
from openclaw.serving.counters import SharedCounters
from openclaw.serving.exchange import Encode, Exchange, open_inference
from openclaw.serving.http.bodies import LARGE
from openclaw.serving.http.messages import Answer, Content, Request
from openclaw.serving.inference import InferRequest
from openclaw.serving.loading import load
from openclaw.serving.protocol import HEADER_LENGTH
from openclaw.serving.served import Served
from openclaw.serving.telemetry import Telemetry
from support.waiting import until
from support.wire import Client, serving

ROWS = LARGE // (64 * 4) + 1
READ = open_inference(None)


class Gated:
    """A model whose runs end when they are let."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._let = threading.Semaphore(0)
        self.inputs: list[Array] = []
        self.ended = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def infer(self, names: Sequence[str], arrays: Mapping[str, Array]) -> list[Array]:
        self.inputs.append(arrays["image"])
        assert self._let.acquire(timeout=20)
        answer: list[Array] = self._model.infer(names, arrays)
        self.ended += 1
        return answer

    def alone(self, image: Array) -> list[Array]:
        """What the model itself answers."""
        answer: list[Array] = self._model.infer(["scores"], {"image": image})
        return answer

    def let(self, runs: int) -> None:
        self._let.release(runs)


@dataclass
class Site:
    """Answers inferences, and keeps what was received and what was read."""

    served: Served
    model: Gated
    exchange: Exchange
    may_read: threading.Event = field(default_factory=threading.Event)
    bodies: list[Content] = field(default_factory=list)
    read: list[InferRequest] = field(default_factory=list)

    def __call__(self, request: Request) -> Answer | Awaitable[Answer]:
        self.bodies.append(request.body)
        return self.exchange.answer(request, self.served, self._dialect)

    def _dialect(self, body: Content, length: str | None, served: Served) -> tuple[InferRequest, Encode]:
        assert self.may_read.wait(20)
        decoded, encode = READ(body, length, served)
        self.read.append(decoded)
        return decoded, encode


@pytest.fixture
async def site(models: Any) -> AsyncIterator[Site]:
    path = models.digits()
    loaded = await asyncio.to_thread(load, ModelConfig(name="digits", uri=path.as_uri()), path, threads=1)
    model: Any = Gated(loaded.model)
    telemetry = Telemetry(SharedCounters())
    metrics = telemetry.metrics.model("digits")
    executor = ThreadPoolExecutor(1)
    served = Served(replace(loaded, model=model), "1", metrics=metrics, executor=executor, runs=1)
    site = Site(served, model, Exchange(telemetry, max_bytes=2**26))
    site.may_read.set()
    yield site
    model.let(10)
    await asyncio.to_thread(executor.shutdown)


def images(value: float) -> np.ndarray[Any, Any]:
    return np.full((ROWS, 64), value, np.float32)


def ask(client: Client, value: float, *, binary: bool = True) -> None:
    """Sends a large request; its JSON, where binary data follows, is as long as keeps that aligned."""
    tensor: dict[str, Any] = {"name": "image", "datatype": "FP32", "shape": [ROWS, 64]}
    blob = images(value).tobytes() if binary else b""
    tensor |= {"parameters": {"binary_data_size": len(blob)}} if binary else {"data": images(value).ravel().tolist()}
    document = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    head = document.ljust(-(-len(document) // 64) * 64).encode()
    assert len(head) + len(blob) > LARGE
    told = [f"{HEADER_LENGTH}: {len(head)}"] if binary else []
    client.send("POST / HTTP/1.1", "Host: x", *told, f"Content-Length: {len(head + blob)}", body=head + blob)


async def scores(client: Client) -> np.ndarray[Any, Any]:
    status, headers, body = await client.answer()
    assert status == 200
    return np.frombuffer(body[int(headers[HEADER_LENGTH.lower()]) :], np.float32).reshape(ROWS, 10)


async def test_others_are_received_and_read_while_a_run_takes_the_models_thread_and_answered_while_the_next_does(
    site: Site,
) -> None:
    async with serving(site) as wire:
        first, second, third = [await wire.connect() for _ in range(3)]
        ask(first, 1)
        await until(lambda: len(site.model.inputs) == 1)
        ask(second, 2)
        ask(third, 3, binary=False)
        await until(lambda: len(site.read) == 3)
        assert (len(site.model.inputs), site.model.ended) == (1, 0)
        site.model.let(1)
        answers = [await scores(first)]
        await until(lambda: len(site.model.inputs) == 2)
        assert site.model.ended == 1
        site.model.let(2)
        answers += [await scores(second), await scores(third)]
    for value, answer in enumerate(answers, start=1):
        (expected,) = site.model.alone(images(value))
        np.testing.assert_array_equal(answer, expected)


async def test_a_large_tensor_is_given_to_the_model_where_it_was_received(site: Site) -> None:
    async with serving(site) as wire:
        client = await wire.connect()
        site.model.let(1)
        ask(client, 1)
        await scores(client)
    (body,), (image,) = site.bodies, site.model.inputs
    assert np.shares_memory(image, np.frombuffer(body, np.uint8))


async def test_a_version_whose_request_is_still_being_read_answers_it_before_it_is_retired(site: Site) -> None:
    site.may_read.clear()
    site.model.let(1)
    async with serving(site) as wire:
        client = await wire.connect()
        ask(client, 1, binary=False)
        await until(lambda: bool(site.bodies))
        retiring = asyncio.create_task(site.served.retire())
        await until(lambda: not site.served.ready)
        site.may_read.set()
        (expected,) = site.model.alone(images(1))
        np.testing.assert_array_equal(await scores(client), expected)
        await asyncio.wait_for(retiring, 10)
