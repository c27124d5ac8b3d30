"""Serving, from a configuration to an exit code.

onnxruntime makes a session without holding Python's lock, so the first model is loaded while what serves it is still
being imported: a tenth of a cold start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from openclaw.config import ServerConfig
from openclaw.serving.loader import Loader
from openclaw.serving.loading import Loaded
from openclaw.serving.process import run_loop
from openclaw.serving.threads import in_thread
from openclaw.storage.cache import default_folder

Serve = Callable[[ServerConfig, Loader, Awaitable[Loaded]], Awaitable[None]]


def run(config: ServerConfig) -> int:
    """Serves until told to stop, in this process or in workers; returns the exit code.

    Raises:
        StartupError: a model could not be brought up.
    """
    entry = _alone if config.server.workers == 1 else _with_workers
    run_loop(entry(config, default_folder()))
    return 0


async def _alone(config: ServerConfig, cache_dir: Path) -> None:
    loader = Loader(config, cache_dir)
    first = asyncio.create_task(loader.bring_up(config.model))
    try:
        serve = await in_thread(_imported)
        await serve(config, loader, first)
    finally:
        # Nobody has asked for it where the server could not listen.
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


def _imported() -> Serve:
    from openclaw.serving.lifecycle import serve

    return serve


def _with_workers(config: ServerConfig, cache_dir: Path) -> Coroutine[Any, Any, None]:
    """Forks before there is a loop, so that the processes share what they have imported."""
    from openclaw.serving.forking import forked
    from openclaw.serving.workers import serve_with_workers

    return serve_with_workers(config, cache_dir, process=forked())
