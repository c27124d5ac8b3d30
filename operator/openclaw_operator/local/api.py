"""The control API of a running daemon, on a Unix socket that only its user can open."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from openclaw_operator import names
from openclaw_operator.cluster.memory import MemoryCluster
from openclaw_operator.cluster.port import ApiError
from openclaw_operator.local.failures import DocumentError
from openclaw_operator.local.launch import CREDENTIALS
from openclaw_operator.local.sources import Sources


class Up(BaseModel):
    """What `openclaw local up` asks for."""

    model_config = ConfigDict(extra="forbid")

    files: list[Path]
    """Absolute paths."""
    credentials: dict[str, str] = {}
    """Variables of the caller's environment that object stores are opened with."""


class State(BaseModel):
    """What a daemon tells about itself."""

    pid: int
    port: int
    files: list[Path]
    error: str
    """Why the files as they are now are not applied; empty when they are."""
    services: list[dict[str, Any]]


class ControlApi:
    """`GET /state`, `POST /up`, `POST /down`."""

    def __init__(
        self,
        cluster: MemoryCluster,
        sources: Sources,
        *,
        state: Callable[[], State],
        credentials: Callable[[Mapping[str, str]], None],
        down: Callable[[], None],
    ) -> None:
        """
        Args:
            cluster: Where the services are.
            sources: What up adds files to.
            state: What to answer to `GET /state`.
            credentials: Takes the caller's credentials.
            down: Ends the daemon.
        """
        self._cluster = cluster
        self._sources = sources
        self._state = state
        self._credentials = credentials
        self._down = down
        self._runner: web.AppRunner | None = None

    async def start(self, socket: Path) -> None:
        app = web.Application()
        app.add_routes(
            [web.get("/state", self._get_state), web.post("/up", self._post_up), web.post("/down", self._post_down)]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(socket)).start()

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def _get_state(self, _: web.Request) -> web.Response:
        return web.Response(text=self._state().model_dump_json(), content_type="application/json")

    async def _post_up(self, request: web.Request) -> web.Response:
        try:
            up = Up.model_validate_json(await request.read())
            self._credentials({name: up.credentials[name] for name in up.credentials if name.startswith(CREDENTIALS)})
            keys = await self._sources.add(up.files)
        except (ValidationError, DocumentError, ApiError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"services": [[key.namespace, key.name] for key in keys]})

    async def _post_down(self, _: web.Request) -> web.Response:
        self._down()
        return web.json_response({}, status=202)


def services(cluster: MemoryCluster) -> list[dict[str, Any]]:
    """Every service, by name."""
    found = cluster.all(names.SERVICE_KIND.name)
    return sorted(found, key=lambda each: (each["metadata"]["namespace"], each["metadata"]["name"]))
