"""The operator's own endpoints, asked over HTTP."""

from collections.abc import Callable

import aiohttp
from aiohttp import web
from testcluster.ports import free_ports

from openclaw_operator import health
from openclaw_operator.telemetry import Telemetry


async def asked(path: str, routes: dict[str, Callable[[], web.Response]]) -> tuple[int, str]:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}{path}"
    async with health.serving(port, routes), aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_it_is_alive_while_its_work_is_not_overdue() -> None:
    assert await asked("/healthz", {"/healthz": health.liveness(lambda: 119.0, limit=120)}) == (200, "ok\n")


async def test_it_is_not_alive_once_its_work_is_overdue_and_says_by_how_much() -> None:
    status, text = await asked("/healthz", {"/healthz": health.liveness(lambda: 121.0, limit=120)})
    assert status == 503
    assert "121 s" in text


async def test_metrics_are_what_prometheus_reads() -> None:
    telemetry = Telemetry()
    telemetry.observe_queue(depth=lambda: 3, overdue=lambda: 1.5)
    telemetry.observe_watch("Pod", age=lambda: 7)
    status, text = await asked("/metrics", {"/metrics": health.metrics(telemetry.registry)})
    assert status == 200
    assert "openclaw_operator_queue_depth 3.0" in text
    assert "openclaw_operator_queue_overdue_seconds 1.5" in text
    assert 'openclaw_operator_watch_age_seconds{kind="Pod"} 7.0' in text
