"""One server process, from listening to drained.

listen -> live 200, ready 503 -> fetch, load, warm up -> ready 200
SIGTERM -> ready 503, still answering for drainDelaySeconds -> stop accepting -> finish -> exit 0
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from openclaw.config import ServerConfig, ServerOptions
from openclaw.devices.cpu import default_threads, read_grant
from openclaw.errors import ConfigInvalid, StartupError
from openclaw.execute.session import Model
from openclaw.serving.announce import announce
from openclaw.serving.counters import SharedCounters
from openclaw.serving.endpoint import Endpoint
from openclaw.serving.http.messages import Limits as HttpLimits
from openclaw.serving.http.server import BACKLOG, HttpServer
from openclaw.serving.rest import Rest
from openclaw.serving.signals import StopSignals
from openclaw.serving.telemetry import Telemetry
from openclaw.serving.warmup import warm_up
from openclaw.storage.fetch import Limits, fetch
from openclaw.storage.uri import parse

log = logging.getLogger(__name__)

T = TypeVar("T")


async def serve(config: ServerConfig, cache_dir: Path) -> None:
    """Serves one model in this process until it is told to stop.

    Raises:
        StartupError: the model could not be brought up.
    """
    signals = StopSignals()
    signals.install()
    listener = listen(config.server, shared=False)
    telemetry = Telemetry(SharedCounters())
    telemetry.start()
    endpoint = Endpoint(config.model.name, telemetry, concurrency=cores_of(config))
    server = await start(endpoint, listener, config.server)
    log.info("listening on %s; loading %s", shown_address(listener), parse(config.model.uri))
    try:
        began = time.perf_counter()
        loaded = await until_stopped(bring_up(config, cache_dir, endpoint), signals)
        if loaded is not None:
            telemetry.settle()
            endpoint.open(loaded.model, quickest=loaded.quickest)
            announce(loaded.model, listener.getsockname(), seconds=time.perf_counter() - began)
            await signals.stop.wait()
            server.drain()
            await drain(endpoint, signals, config.server)
    finally:
        await server.stop(config.server.drain_timeout_seconds)
        telemetry.stop()
    log.info("stopped")


@dataclass(frozen=True)
class Loaded:
    """A model that was warmed up, and the seconds of its quickest inference."""

    model: Model
    quickest: float


async def bring_up(config: ServerConfig, cache_dir: Path, endpoint: Endpoint) -> Loaded:
    """Fetches, loads and warms up the model; its time and its failure are in the metrics."""
    began = time.perf_counter()
    try:
        path = await fetch_model(config, cache_dir)
        # Not the loop's own executor: closing the loop waits for that, and a load cannot be interrupted.
        loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        loaded = await asyncio.get_running_loop().run_in_executor(loader, load_model, config, path)
        loader.shutdown(wait=False)
    except StartupError as error:
        endpoint.metrics.load_failed(error.reason)
        raise
    endpoint.metrics.loaded(time.perf_counter() - began)
    return loaded


async def fetch_model(config: ServerConfig, cache_dir: Path) -> Path:
    """The model as a local file."""
    limits = Limits(timeout_seconds=config.model.download_timeout_seconds, max_bytes=config.model.max_bytes)
    return await fetch(parse(config.model.uri), cache_dir=cache_dir, sha256=config.model.sha256, limits=limits)


def load_model(config: ServerConfig, path: Path) -> Loaded:
    """Loads and warms up; takes as long as the model needs."""
    source = str(parse(config.model.uri))
    model = Model.from_file(path, name=config.model.name, threads=threads_of(config), source=source)
    log.info("loaded %s with %d thread(s)", path, model.threads)
    return Loaded(model, warm_up(model, config.model.warmup.requests))


def cores_of(config: ServerConfig) -> int:
    """Whole cores for each process: how many inferences it runs at once."""
    return default_threads(read_grant().cores, config.server.workers)


def threads_of(config: ServerConfig) -> int:
    """Threads for one inference: what was asked for, or the process's cores."""
    return config.server.threads or cores_of(config)


def listen(options: ServerOptions, *, shared: bool) -> socket.socket:
    """A listening socket; ``shared`` lets several processes listen on one port (SO_REUSEPORT, socket(7)).

    Raises:
        ConfigInvalid: the host or port cannot be used.
    """
    listener = _bound(options, shared=shared)
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def reserve(options: ServerOptions) -> socket.socket:
    """A socket that holds the port for processes that will share it, without listening.

    Raises:
        ConfigInvalid: the port is taken, also when by another server that would share it.
    """
    with _bound(options, shared=False) as probe:
        port = probe.getsockname()[1]
    return _bound(options.model_copy(update={"port": port}), shared=True)


def _bound(options: ServerOptions, *, shared: bool) -> socket.socket:
    try:
        family = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((options.host, options.port))
    except OSError as error:
        raise ConfigInvalid(
            f"the server cannot listen on host {options.host!r}, port {options.port}: {error.strerror or error}; "
            "choose others with --host and --port, or server.host and server.port"
        ) from error
    return bound


def shown_address(listener: socket.socket) -> str:
    """Host and port as in a URL."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def start(endpoint: Endpoint, listener: socket.socket, options: ServerOptions) -> HttpServer:
    """Starts answering on ``listener``."""
    server = HttpServer(Rest(endpoint), limits=HttpLimits(max_body_bytes=options.max_request_bytes))
    await server.start([listener])
    return server


async def until_stopped(work: Coroutine[Any, Any, T], signals: StopSignals) -> T | None:
    """The work's result, or None when a signal to stop came first."""
    task, stop = asyncio.create_task(work), asyncio.create_task(signals.stop.wait())
    await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return None


async def drain(endpoint: Endpoint, signals: StopSignals, options: ServerOptions) -> None:
    """Says that it stops, and answers what still comes until load balancers have heard it."""
    endpoint.drain()
    log.info("stopping: still answering for %d s, then finishing what is in flight", options.drain_delay_seconds)
    await signals.delay(options.drain_delay_seconds)
