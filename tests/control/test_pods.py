"""How the operator asks a pod over HTTP: a real server answers, or does what no server should."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from testcluster.ports import free_ports

from openclaw_operator.cluster.pods import MAX_BYTES, TIMEOUT, HttpPods
from openclaw_operator.cluster.port import UnreachableError
from openclaw_operator.names import Key
from openclaw_operator.tiers import Incarnation, Question

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def question(port: int, *, model: str = "digits") -> Question:
    return Question(Key("vision", "digits"), Incarnation("u", 0), "127.0.0.1", port, model)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """Answers every request on a port of this machine."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_the_statistics_of_the_model_are_asked_for() -> None:
    asked: list[tuple[str, str]] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append((request.method, request.raw_path))
        return web.Response(body=b"said")

    async with serving(handler) as port:
        assert await HttpPods().statistics(question(port)) == b"said"
        assert await HttpPods().statistics(question(port, model="../../v2/health")) == b"said"
    assert asked[0] == ("GET", "/v2/models/digits/stats")
    assert asked[1][1].count("/") == 4


@pytest.mark.parametrize("status", [204, 302, 404, 500, 503])
async def test_what_is_refused_names_nothing(status: int) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status)

    async with serving(handler) as port:
        assert await HttpPods().statistics(question(port)) == b""


async def test_a_redirect_is_not_followed() -> None:
    elsewhere: list[str] = []

    async def other(request: web.Request) -> web.Response:
        elsewhere.append(request.path)
        return web.Response(body=b"said")

    async with serving(other) as target:

        async def handler(_: web.Request) -> web.Response:
            return web.Response(status=302, headers={"Location": f"http://127.0.0.1:{target}/"})

        async with serving(handler) as port:
            assert await HttpPods().statistics(question(port)) == b""
    assert elsewhere == []


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    async def proxy(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(body=b"from the proxy")

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=b"said")

    async with serving(proxy) as between, serving(handler) as port:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{between}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert await HttpPods().statistics(question(port)) == b"said"
    assert seen == []


async def test_no_more_is_read_than_an_answer_may_have() -> None:
    sent = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(1 << 16))
            sent += 1 << 16

    async with serving(handler) as port:
        assert await HttpPods().statistics(question(port)) == b""
    # What lies in the buffers of the kernel was sent, and never read.
    assert MAX_BYTES < sent < MAX_BYTES + (32 << 20)


async def test_what_comes_packed_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    assert len(bomb) < MAX_BYTES

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with serving(handler) as port:
        assert await HttpPods().statistics(question(port)) == bomb


async def test_one_that_never_ends_its_answer_is_given_up_in_time() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.01)

    began = time.monotonic()
    async with serving(handler) as port:
        with pytest.raises(UnreachableError, match=f"127.0.0.1:{port}.*Timeout"):
            await HttpPods().statistics(question(port))
        assert time.monotonic() - began < TIMEOUT + 5


async def test_who_does_not_listen_is_unreachable() -> None:
    (port,) = free_ports(1)
    with pytest.raises(UnreachableError, match=str(port)):
        await HttpPods().statistics(question(port))


async def test_what_is_no_http_is_unreachable() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        with pytest.raises(UnreachableError):
            await HttpPods().statistics(question(server.sockets[0].getsockname()[1]))
