"""Brings models up on threads, while the event loop answers or the rest of the server is imported."""

from __future__ import annotations

import time
from pathlib import Path

from openclaw.config import ModelConfig, ServerConfig
from openclaw.devices.memory import room_bytes
from openclaw.execute.threads import threads_of
from openclaw.serving.loading import Loaded, check_room, load, measured
from openclaw.serving.threads import in_thread
from openclaw.storage.fetch import fetch_model


class Loader:
    """Fetches, loads and warms up models as a server's configuration has it.

    Args:
        config: the server's.
        cache_dir: where fetched files are kept.

    Attributes:
        began: when it was made, by ``time.perf_counter()``.
    """

    def __init__(self, config: ServerConfig, cache_dir: Path) -> None:
        self.began = time.perf_counter()
        self._config = config
        self._cache_dir = cache_dir

    async def bring_up(self, model: ModelConfig) -> Loaded:
        """A model that is ready to answer; raises StartupError."""
        return await self._load(model, await fetch_model(model, self._cache_dir))

    async def bring_up_beside(self, model: ModelConfig) -> Loaded:
        """The same beside models that are served already, if there is room, and measured; raises StartupError."""
        path = await fetch_model(model, self._cache_dir)
        check_room(path, room_bytes())
        return await in_thread(measured, await self._load(model, path))

    async def _load(self, model: ModelConfig, path: Path) -> Loaded:
        device = self._config.server.device
        return await in_thread(load, model, path, threads=threads_of(self._config), device=device)
