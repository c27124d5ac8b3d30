"""What a server's configuration gives each inference of the cores that its processes are granted.

A result of the optimizer is found by its number of threads, so the step before serving and the server ask here both.
"""

from __future__ import annotations

from openclaw.config import ServerConfig
from openclaw.devices.cpu import default_threads, read_grant


def cores_of(config: ServerConfig) -> int:
    """Whole cores for each process."""
    return default_threads(read_grant().cores, config.server.workers)


def threads_of(config: ServerConfig) -> int:
    """Threads for one inference: what was asked for, or the process's cores."""
    return config.server.threads or cores_of(config)


def runs_of(config: ServerConfig) -> int:
    """How many inferences a process runs at once: as many as keep its cores busy."""
    return max(1, cores_of(config) // threads_of(config))


def spare_of(config: ServerConfig) -> int:
    """How many more may share those cores: one where an inference has several threads, which wait for each other."""
    return 1 if threads_of(config) > 1 else 0
