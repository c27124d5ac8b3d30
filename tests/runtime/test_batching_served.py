"""Batching as a client of ``openclaw serve`` meets it: shared runs, full queues, deadlines, and their metrics."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from support.waiting import until

WIDE = 4096
"""Reading the weights is what takes the time of a run: sixteen rows take hardly longer than one."""
HEADER = "Inference-Header-Content-Length"
Start = Callable[..., Any]


class Reply(NamedTuple):
    status: int
    retry_after: str | None
    body: bytes
    header_length: int

    @property
    def error(self) -> str:
        sentence: str = json.loads(self.body)["error"]
        return sentence


@dataclass
class Client:
    session: aiohttp.ClientSession
    server: Any

    async def ask(self, value: float, rows: int = 1, **parameters: object) -> Reply:
        """Rows of this value; the answer has half of it."""
        blob = np.full((rows, WIDE), value, np.float32).tobytes()
        tensor = {"name": "x", "datatype": "FP32", "shape": [rows, WIDE], "parameters": {"binary_data_size": len(blob)}}
        parameters["binary_data_output"] = True
        head = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
        async with self.session.post(
            "/v2/models/slow/infer", data=io.BytesIO(head + blob), headers={HEADER: str(len(head))}
        ) as answer:
            length = int(answer.headers.get(HEADER, 0))
            return Reply(answer.status, answer.headers.get("Retry-After"), await answer.read(), length)

    async def ask_at_once(self, count: int) -> list[Reply]:
        """So many rows, each on a connection of its own; those that were answered were answered rightly."""
        replies = await asyncio.gather(*[self.ask(float(number)) for number in range(count)])
        for number, reply in enumerate(replies):
            if reply.status == 200:
                row = np.frombuffer(reply.body[reply.header_length :], np.float32)
                np.testing.assert_array_equal(row, np.full(WIDE, number / 2, np.float32))
        return replies

    async def metric(self, name: str, **labels: str) -> float:
        """A sample of the model's; 0 where there is none."""
        labels["model"] = "slow"
        async with self.session.get("/metrics") as answer:
            families = list(parse_text(await answer.text()))
        found = [s.value for family in families for s in family.samples if s.name == name and s.labels == labels]
        assert len(found) <= 1
        return sum(found)

    async def holds(self, name: str, value: float) -> bool:
        """Whether a sample of the model's has this value."""
        return await self.metric(name) == value


@asynccontextmanager
async def serving(start_server: Start, *arguments: object, measured: str) -> AsyncIterator[Client]:
    """A server, once its log says ``measured`` of batching."""
    server = await asyncio.to_thread(lambda: start_server(*arguments, "--drain-delay", 0).wait_ready())
    await asyncio.to_thread(server.wait_for, measured)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(server.url, connector=connector) as session:
        yield Client(session, server)
    assert await asyncio.to_thread(server.stop) == 0
    assert "Traceback" not in server.log


@pytest.fixture
def model(models: Any) -> Path:
    path: Path = models.slow(WIDE, 1)
    return path


async def test_requests_that_come_together_share_runs_no_larger_than_allowed(start_server: Start, model: Path) -> None:
    options = ("--name", "slow", "--max-batch-size", 16)
    async with serving(start_server, model, *options, measured="batching pays") as client:
        replies = await client.ask_at_once(64)
        assert {reply.status for reply in replies} == {200}
        runs = await client.metric("openclaw_batch_size_count")
        assert await client.metric("openclaw_batch_size_sum") == 64
        assert runs < 64
        assert await client.metric("openclaw_batch_size_bucket", le="1.0") < runs
        assert await client.metric("openclaw_batch_size_bucket", le="16.0") == runs
        assert await client.metric("openclaw_inference_duration_seconds_count") == runs
        assert await client.metric("openclaw_queue_seconds_count") == 64
        assert await client.metric("openclaw_queue_seconds_sum") > 0


async def test_a_full_queue_refuses_with_the_time_after_which_to_ask_again(
    start_server: Start, model: Path, tmp_path: Path
) -> None:
    batching = {"maxBatchSize": 1, "maxQueueLength": 2}
    config = tmp_path / "server.json"
    config.write_text(json.dumps({"model": {"name": "slow", "uri": model.as_uri(), "batching": batching}}))
    off = "batching is off: max_batch_size is 1"
    async with serving(start_server, "--config", config, measured=off) as client:
        replies = await client.ask_at_once(64)
        statuses = Counter(reply.status for reply in replies)
        assert set(statuses) == {200, 429}
        for reply in replies:
            if reply.status == 429:
                assert "the queue is full: 2 requests (max_queue_length)" in reply.error
                assert reply.retry_after is not None
                assert int(reply.retry_after) >= 1
        assert await client.metric("openclaw_requests_shed_total", reason="queue_length") == statuses[429]
        labels = {"version": "1", "protocol": "rest", "code": "429"}
        assert await client.metric("openclaw_requests_total", **labels) == statuses[429]
        assert await client.metric("openclaw_batch_size_bucket", le="1.0") == statuses[200]


async def test_a_latency_target_refuses_those_who_would_be_late(start_server: Start, model: Path) -> None:
    options = ("--name", "slow", "--max-batch-size", 1, "--latency-target", 0.05)
    async with serving(start_server, model, *options, measured="batching is off: max_batch_size is 1") as client:
        replies = await client.ask_at_once(256)
        statuses = Counter(reply.status for reply in replies)
        assert statuses[200]
        assert statuses[429]
        assert set(statuses) == {200, 429}
        for reply in replies:
            if reply.status == 429:
                assert "the deadline cannot be met" in reply.error
                assert reply.retry_after is not None
                assert int(reply.retry_after) >= 1
        assert await client.metric("openclaw_requests_shed_total", reason="deadline") == statuses[429]


async def test_a_request_brings_its_own_deadline_in_microseconds(start_server: Start, model: Path) -> None:
    options = ("--name", "slow", "--max-batch-size", 16)
    async with serving(start_server, model, *options, measured="batching pays") as client:
        before = asyncio.create_task(client.ask(1.0, rows=2048))
        await until(lambda: client.holds("openclaw_requests_in_flight", 1))
        soon = await client.ask(1.0, timeout=1)
        assert not before.done()
        assert soon.status in {429, 504}
        assert "deadline" in soon.error
        refused = [await client.metric("openclaw_requests_shed_total", reason=why) for why in ("deadline", "expired")]
        assert sum(refused) == 1
        assert (await client.ask(1.0, timeout=60_000_000)).status == 200
        assert (await before).status == 200
        wrong = await client.ask(1.0, timeout=-1)
        assert wrong.status == 400
        assert "parameters.timeout is -1; a whole number of microseconds is needed" in wrong.error
