"""Ten thousand clients that are connected, and some that want to be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

MANY = 10_000
SPARE = 1_000
BODY = json.dumps({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": [1.0] * 64}]}).encode()
REQUEST = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """A descriptor for each of them on this side as well."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY + SPARE
    assert hard == resource.RLIM_INFINITY or hard >= wanted, f"this machine allows {hard} open files; needed: {wanted}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def connect(port: int, count: int) -> list[Connection]:
    opened: list[Connection] = []
    while len(opened) < count:
        some = min(200, count - len(opened))
        opened += await asyncio.gather(*[asyncio.open_connection("127.0.0.1", port) for _ in range(some)])
    return opened


async def ask(connection: Connection) -> int:
    reader, writer = connection
    writer.write(REQUEST)
    status = int((await reader.readline()).split()[1])
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    await reader.readexactly(length)
    return status


async def hang_up(connections: Sequence[Connection]) -> None:
    for _, writer in connections:
        writer.close()
    for _, writer in connections:
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_ten_thousand_connections_are_served_and_one_more_is_told_to_wait(start_server: Any, models: Any) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    server = await asyncio.to_thread(lambda: start_server(models.digits(), "--drain-delay", 0).wait_ready())
    # It raised its own limit: a shell may have left it fewer.
    assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    async with asyncio.timeout(100):
        connections = await connect(server.port, MANY)
        # All of them are seen before one more comes.
        assert set(await asyncio.gather(*[ask(each) for each in connections[::7]])) == {200}
        assert await ask(connections[-1]) == 200
        (refused,) = await connect(server.port, 1)
        assert (await refused[0].readline()).split()[1] == b"503"
        await hang_up([refused, *connections])
        (again,) = await connect(server.port, 1)
        assert await ask(again) == 200
        await hang_up([again])
    assert await asyncio.to_thread(server.stop) == 0
    assert "Traceback" not in server.log
