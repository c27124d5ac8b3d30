"""The gateway follows the cluster, and says when requests go where the cluster's state says."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from openclaw_operator.cluster.memory import MemoryCluster
from openclaw_operator.local.failures import GatewayError
from openclaw_operator.local.gateway import Gateway
from openclaw_operator.local.podstatus import Container, pod_status
from openclaw_operator.names import Manifest, Ref

NOW = "2026-01-01T00:00:00Z"


@pytest.fixture
def cluster() -> MemoryCluster:
    return MemoryCluster(clock=lambda: NOW)


@pytest.fixture
async def gateway(cluster: MemoryCluster, tmp_path: Path) -> AsyncIterator[Gateway]:
    """A running Envoy that follows the cluster."""
    running = Gateway(cluster, tmp_path, port=_free_port(), marker=tmp_path)
    cluster.subscribe(running.seen)
    await running.start()
    task = asyncio.create_task(running.run())
    yield running
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await running.stop()


async def test_requests_follow_the_ready_pods(cluster: MemoryCluster, gateway: Gateway) -> None:
    url = f"http://127.0.0.1:{gateway.port}/default/digits/v2"
    async with aiohttp.ClientSession() as session, _server("one") as one, _server("two") as two:
        await cluster.apply(service())
        await gateway.settled()
        assert await _ask(session, url) == (503, "no healthy upstream")
        first = await _pod(cluster, "one", port=one)
        await gateway.settled()
        assert await _ask(session, url) == (200, "one")
        await _pod(cluster, "two", port=two)
        await cluster.delete(first)
        await gateway.settled()
        assert {await _ask(session, url) for _ in range(10)} == {(200, "two")}
        await cluster.delete(service())
        await gateway.settled()
        assert (await _ask(session, url))[0] == 404


async def test_a_taken_port_is_told_at_once(cluster: MemoryCluster, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        gateway = Gateway(cluster, tmp_path, port=taken.getsockname()[1], marker=tmp_path)
        try:
            with pytest.raises(GatewayError, match=f"port {gateway.port}: .*[Aa]ddress already in use"):
                await asyncio.wait_for(gateway.start(), 20)
        finally:
            await gateway.stop()
    assert not (tmp_path / "admin.sock").exists()


def service() -> Manifest:
    return {
        "apiVersion": "openclaw.io/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "digits", "namespace": "default"},
        "spec": {"model": {"uri": "s3://models/digits.onnx"}},
    }


async def _pod(cluster: MemoryCluster, name: str, *, port: int) -> Manifest:
    """A pod whose server is ready on a port."""
    metadata = {"name": name, "namespace": "default", "labels": {"openclaw.io/service": "digits"}}
    spec = {"containers": [{"name": "server"}]}
    pod = await cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    status = pod_status(pod, Container(running=NOW, started=True, ready=True, port=port), now=NOW)
    return cluster.write_status(Ref("Pod", "default", name), status)


@asynccontextmanager
async def _server(name: str) -> AsyncIterator[int]:
    """The port of a server that answers every request with its name."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=name)

    app = web.Application()
    app.add_routes([web.get("/{path:.*}", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def _ask(session: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    async with session.get(url) as response:
        return response.status, await response.text()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
