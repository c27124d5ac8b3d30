"""The operator's own HTTP endpoints: /healthz and /readyz for the kubelet, /metrics for Prometheus."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


@contextlib.asynccontextmanager
async def serving(port: int, routes: dict[str, Callable[[], web.Response]]) -> AsyncIterator[None]:
    """Answers GET on each path, on every address of the machine."""
    app = web.Application()
    for path, answer in routes.items():
        app.router.add_get(path, _handler(answer))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, None, port).start()
        yield
    finally:
        await runner.cleanup()


def liveness(overdue: Callable[[], float], *, limit: float) -> Callable[[], web.Response]:
    """200 while work is being done; 503 once the service longest due has waited more than `limit` seconds.

    A loop that turns is not enough: a reconcile that hangs lets its service, and those behind it, wait for ever.
    """

    def answer() -> web.Response:
        late = overdue()
        if late > limit:
            return web.Response(status=503, text=f"a service has been due for {late:.0f} s, more than {limit:.0f} s\n")
        return web.Response(text="ok\n")

    return answer


def metrics(registry: CollectorRegistry) -> Callable[[], web.Response]:
    def answer() -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return answer


def ok() -> web.Response:
    return web.Response(text="ok\n")


def _handler(answer: Callable[[], web.Response]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(_: web.Request) -> web.StreamResponse:
        return answer()

    return handle
