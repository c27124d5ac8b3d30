"""Several processes on one port: the parent fetches once, has the workers forked, and keeps them alive.

Until every worker is warm the parent itself answers the health paths (live, not ready). Then it stops
listening, and only then the workers begin: whoever is told "ready" can only reach a worker that is. The
kernel spreads connections over the workers' sockets (SO_REUSEPORT, socket(7)).
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from openclaw.config import ModelConfig, ServerConfig
from openclaw.errors import StartupError
from openclaw.serving.counters import SharedCounters
from openclaw.serving.forking import Forks, Process, Worker, started
from openclaw.serving.frontends import Frontends
from openclaw.serving.lifecycle import listen, make_repository, reserve, shown_address, until_stopped
from openclaw.serving.signals import StopSignals
from openclaw.serving.telemetry import Telemetry
from openclaw.storage.fetch import fetch_model

log = logging.getLogger(__name__)

RESTART_SECONDS = (0.5, 30.0)
STEADY_SECONDS = 60.0
EXIT_SLACK_SECONDS = 5.0
_GOODBYE_SECONDS = 1.0


async def serve_with_workers(config: ServerConfig, cache_dir: Path, *, process: Process) -> None:
    """Serves in ``config.server.workers`` processes until told to stop.

    Args:
        config: of the server.
        cache_dir: where fetched files are kept.
        process: to be the fork server; it is ended.

    Raises:
        StartupError: a model could not be brought up, here or in a worker.
    """
    try:
        await _serve(config, cache_dir, process)
    finally:
        await process.stop()


async def _serve(config: ServerConfig, cache_dir: Path, process: Process) -> None:
    signals = StopSignals()
    signals.install()
    reservation = reserve(config.server)
    options = config.server.model_copy(update={"port": reservation.getsockname()[1]})
    listener = listen(options, shared=True)
    address = shown_address(listener)
    waiting = make_repository(config, Telemetry(SharedCounters()))
    waiting_room = await Frontends.start(waiting, [listener], options.model_copy(update={"grpc_port": None}))
    names = ", ".join(model.name for model in config.all_models)
    log.info("listening on %s; loading %s in %d workers", address, names, options.workers)
    began = time.perf_counter()
    fleet: Fleet | None = None
    try:
        local = await until_stopped(_local(config, cache_dir), signals)
        if local is not None:
            fleet = Fleet(local.model_copy(update={"server": options}), process)
            if await until_stopped(fleet.warm(), signals):
                await waiting_room.stop(_GOODBYE_SECONDS)
                await fleet.listen()
                for model in config.all_models:
                    log.info("%s is ready on %s after %.2f s", model.name, address, time.perf_counter() - began)
                await signals.stop.wait()
    finally:
        if fleet is not None:
            await fleet.stop(signals)
        await waiting_room.stop(_GOODBYE_SECONDS)
        reservation.close()
    log.info("stopped")


async def _local(config: ServerConfig, cache_dir: Path) -> ServerConfig:
    """The configuration with every model as a local file, fetched and checked."""

    async def fetched(model: ModelConfig) -> ModelConfig:
        path = await fetch_model(model, cache_dir)
        return model.model_copy(update={"uri": path.absolute().as_uri(), "sha256": None})

    first, *others = [await fetched(model) for model in config.all_models]
    return config.model_copy(update={"model": first, "models": tuple(others)})


class Fleet:
    """All workers; one that dies is forked anew, later and later if it dies soon."""

    def __init__(self, config: ServerConfig, process: Process) -> None:
        """``process``: to be the fork server."""
        self._config = config
        self._spare: Process | None = process
        self._counters = SharedCounters(config.server.workers)
        self._forks: Forks | None = None
        self._workers: list[Worker] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._turn = asyncio.Lock()

    async def warm(self) -> bool:
        """Forks every worker and waits until all are warm."""
        for slot in range(self._config.server.workers):
            self._workers.append(await self._fork(slot))
        await asyncio.gather(*(worker.warm() for worker in self._workers))
        return True

    async def listen(self) -> None:
        """Lets every worker answer, and from now on replaces those that die."""
        await asyncio.gather(*(worker.listen() for worker in self._workers))
        for index in range(len(self._workers)):
            self._keepers.append(asyncio.create_task(self._keep(index)))

    async def stop(self, signals: StopSignals) -> None:
        """Drains every worker, and waits until all have ended."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for worker in self._workers:
            worker.tell("drain" if self._keepers else "hurry")
        hurry = asyncio.create_task(self._pass_on(signals))
        try:
            await self._ended()
        finally:
            hurry.cancel()
            if self._forks:
                await self._forks.stop()

    async def _ended(self) -> None:
        options = self._config.server
        within = options.drain_delay_seconds + options.drain_timeout_seconds + EXIT_SLACK_SECONDS
        if not self._workers:
            return
        _, late = await asyncio.wait([worker.gone for worker in self._workers], timeout=within)
        for worker in self._workers:
            if worker.gone in late and self._forks:
                log.warning("worker %d did not stop in time and is killed", worker.pid)
                self._forks.kill(worker)

    async def _pass_on(self, signals: StopSignals) -> None:
        await signals.hurry.wait()
        for worker in self._workers:
            worker.tell("hurry")

    async def _fork(self, slot: int) -> Worker:
        """A new worker, from a new fork server where the last one is gone; raises StartupError."""
        async with self._turn:
            if self._forks is None or not self._forks.alive:
                if self._forks:
                    await self._forks.stop()
                process, self._spare = self._spare or started(), None
                self._forks = Forks.start(process, self._config, counters=self._counters)
                await self._forks.loaded()
            return await self._forks.fork(slot)

    async def _keep(self, index: int) -> None:
        delay, longest = RESTART_SECONDS
        while True:
            worker, began = self._workers[index], time.monotonic()
            code = await worker.ended()
            self._counters.slot(index).leave()
            if time.monotonic() - began > STEADY_SECONDS:
                delay = RESTART_SECONDS[0]
            log.warning("worker %d ended with exit code %d; it is started again in %.1f s", worker.pid, code, delay)
            await asyncio.sleep(delay)
            delay = min(2 * delay, longest)
            try:
                self._workers[index] = worker = await self._fork(index)
                await worker.warm()
            except StartupError as error:
                log.error("worker %d was not started again: %s", worker.pid, error)
            else:
                await worker.listen()
                log.info("worker %d answers again", worker.pid)
