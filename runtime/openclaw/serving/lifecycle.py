"""One server process, from listening to drained.

listen -> live 200, ready 503 -> fetch, load, warm up -> ready 200
SIGTERM -> ready 503, still answering for drainDelaySeconds -> stop accepting -> finish -> exit 0
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from openclaw.config import ServerConfig, ServerOptions
from openclaw.devices.cpu import read_grant
from openclaw.errors import ConfigInvalid, StartupError
from openclaw.execute.threads import runs_of, spare_of
from openclaw.memory.accounting import Account
from openclaw.memory.budget import budget_of
from openclaw.serving.announce import announce
from openclaw.serving.counters import SharedCounters
from openclaw.serving.frontends import Frontends
from openclaw.serving.http.server import BACKLOG
from openclaw.serving.loader import Loader
from openclaw.serving.loading import Loaded
from openclaw.serving.modelfolder import ModelFolder
from openclaw.serving.repository import Control, Repository
from openclaw.serving.residence import Residence
from openclaw.serving.signals import StopSignals
from openclaw.serving.telemetry import Telemetry
from openclaw.storage.uri import parse

log = logging.getLogger(__name__)

T = TypeVar("T")


_FIRST_COME = 1.0
"""Seconds in which those are answered who waited for the server to come up: measuring takes all cores."""


async def serve(config: ServerConfig, loader: Loader, first: Awaitable[Loaded]) -> None:
    """Serves in this process until it is told to stop.

    Args:
        config: of the server.
        loader: of its models.
        first: the first of them, which is being loaded already.

    Raises:
        StartupError: a model could not be brought up.
    """
    signals = StopSignals()
    signals.install()
    listener = listen(config.server, shared=False)
    telemetry = Telemetry(SharedCounters())
    telemetry.start()
    account = Account(loader.budget(), ledger=telemetry.ledger)
    patience = config.server.max_inference_seconds
    residence = Residence(account, loader, telemetry.metrics, patience=patience)
    control = _control(config.server, residence)
    repository = make_repository(config, telemetry, account=account, control=control, residence=residence)
    frontends = await Frontends.start(repository, [listener], config.server)
    log.info("listening on %s; loading %s", shown_address(listener), _shown(config))
    # Most of what the collector has to walk is there by now, and a core is idle while the model loads.
    telemetry.settle()
    try:
        if await until_stopped(_bring_up_all(config, residence, repository=repository, first=first), signals):
            telemetry.settle()
            repository.open()
            announce(repository.served(), listener.getsockname(), seconds=time.perf_counter() - loader.began)
            beside = [asyncio.create_task(_measure_all(repository))]
            if account.budget is not None:
                beside.append(asyncio.create_task(residence.tend()))
            await signals.stop.wait()
            for task in beside:
                task.cancel()
            await drain(repository, frontends, signals=signals, options=config.server)
    finally:
        await frontends.stop(config.server.drain_timeout_seconds)
        telemetry.stop()
    log.info("stopped")


async def _bring_up_all(
    config: ServerConfig, residence: Residence, *, repository: Repository, first: Awaitable[Loaded]
) -> bool:
    """Loads every model of the configuration, one after the other; raises StartupError."""
    for model in config.all_models:
        try:
            loaded = await (first if model is config.model else residence.bring_up(model, beside=False))
        except StartupError as error:
            repository.telemetry.metrics.model(model.name).load_failed(error.reason)
            raise
        if model is config.model:
            # Not before: threads that load keep the cores busy.
            await repository.measure_hop()
        repository.put(loaded)
        await residence.settle()
    residence.check()
    return True


async def _measure_all(repository: Repository) -> None:
    """Measures what batches of each model cost, one after the other, while they serve."""
    await asyncio.sleep(_FIRST_COME)
    for served in repository.served():
        await served.measure()


def _control(options: ServerOptions, residence: Residence) -> Control | None:
    """What clients may load."""
    if not options.model_control:
        return None
    folder = ModelFolder(Path(options.model_folder)) if options.model_folder else None
    return Control(residence.bring_up, folder.find if folder else lambda _: None)


def make_repository(
    config: ServerConfig,
    telemetry: Telemetry,
    *,
    account: Account | None = None,
    control: Control | None = None,
    residence: Residence | None = None,
) -> Repository:
    """The repository of a server whose models are still to be loaded; without an account, one of what is granted."""
    budget = budget_of(config.server.memory_budget_bytes, read_grant().memory_bytes)
    patience = config.server.max_inference_seconds
    return Repository(
        config.all_models,
        telemetry,
        runs=runs_of(config),
        spare=spare_of(config),
        patience=patience,
        control=control,
        account=account or Account(budget, ledger=telemetry.ledger),
        residence=residence,
    )


def _shown(config: ServerConfig) -> str:
    return ", ".join(str(parse(model.uri)) for model in config.all_models)


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


async def drain(repository: Repository, frontends: Frontends, *, signals: StopSignals, options: ServerOptions) -> None:
    """Says that it stops, and answers what still comes until load balancers have heard it."""
    repository.drain()
    frontends.drain()
    log.info("stopping: still answering for %d s, then finishing what is in flight", options.drain_delay_seconds)
    await signals.delay(options.drain_delay_seconds)
