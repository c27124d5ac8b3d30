"""Serving, from a configuration to an exit code."""

from __future__ import annotations

from openclaw.config import ServerConfig
from openclaw.serving.lifecycle import serve
from openclaw.serving.process import run_loop
from openclaw.serving.workers import serve_with_workers
from openclaw.storage.cache import default_folder


def run(config: ServerConfig) -> int:
    """Serves until told to stop, in this process or in workers; returns the exit code.

    Raises:
        StartupError: a model could not be brought up.
    """
    entry = serve if config.server.workers == 1 else serve_with_workers
    run_loop(entry(config, default_folder()))
    return 0
