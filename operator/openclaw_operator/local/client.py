"""Asks a running daemon through its control API."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from openclaw_operator.local.api import State, Up
from openclaw_operator.local.failures import ClientError
from openclaw_operator.local.launch import CREDENTIALS
from openclaw_operator.names import Key


class Client:
    """A connection to the daemon behind a control socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        timeout = aiohttp.ClientTimeout(total=30)
        self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def state(self) -> State:
        return State.model_validate(await self._ask("GET", "/state"))

    async def up(self, files: Iterable[Path], environment: Mapping[str, str]) -> list[Key]:
        """Applies files. Returns the services that they declare."""
        credentials = {name: value for name, value in environment.items() if name.startswith(CREDENTIALS)}
        asked = Up(files=list(files), credentials=credentials)
        answer = await self._ask("POST", "/up", body=asked.model_dump_json())
        return [Key(namespace, name) for namespace, name in answer["services"]]

    async def down(self) -> None:
        """Ends the daemon; returns once it has heard."""
        await self._ask("POST", "/down")

    async def _ask(self, method: str, path: str, *, body: str | None = None) -> Any:
        try:
            async with self._session.request(method, f"http://local{path}", data=body) as response:
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ClientError(f"the daemon behind {self._socket} does not answer: {error or 'timeout'}") from error
        if response.status >= 400:
            raise ClientError(str(answer.get("error", answer)))
        return answer
