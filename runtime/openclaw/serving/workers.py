"""Several processes on one port: the parent fetches once, starts the workers, and keeps them alive.

Until every worker answered its warm-up the parent itself answers the health paths (live, not ready). Then
it stops listening, and only then the workers begin: whoever is told "ready" can only reach a worker that
is. The kernel spreads connections over the workers' sockets (SO_REUSEPORT, socket(7)).

The two talk in lines: the parent writes ``listen``, ``drain``, ``hurry`` to a worker's stdin, and its
death closes it; a worker writes ``warm``, ``listening`` or the JSON line of its failure to its stdout.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from openclaw.config import ServerConfig
from openclaw.errors import STARTUP_ERRORS, ModelInvalid, OutOfMemory, StartupError
from openclaw.serving.counters import SharedCounters
from openclaw.serving.endpoint import Endpoint
from openclaw.serving.lifecycle import fetch_model, listen, reserve, shown_address, start, until_stopped
from openclaw.serving.signals import StopSignals
from openclaw.serving.telemetry import Telemetry

log = logging.getLogger(__name__)

RESTART_SECONDS = (0.5, 30.0)
STEADY_SECONDS = 60.0
EXIT_SLACK_SECONDS = 5.0
_GOODBYE_SECONDS = 1.0


async def serve_with_workers(config: ServerConfig, cache_dir: Path) -> None:
    """Serves one model in ``config.server.workers`` processes until told to stop.

    Raises:
        StartupError: the model could not be brought up, here or in a worker.
    """
    signals = StopSignals()
    signals.install()
    reservation = reserve(config.server)
    options = config.server.model_copy(update={"port": reservation.getsockname()[1]})
    listener = listen(options, shared=True)
    address = shown_address(listener)
    waiting = Endpoint(config.model.name, Telemetry(SharedCounters()), concurrency=1)
    waiting_room = await start(waiting, listener, options)
    log.info("listening on %s; loading %s in %d workers", address, config.model.name, options.workers)
    began = time.perf_counter()
    fleet: Fleet | None = None
    try:
        path = await until_stopped(fetch_model(config, cache_dir), signals)
        if path is not None:
            fleet = Fleet(_for_workers(config, options.port, path))
            if await until_stopped(fleet.warm(), signals):
                await waiting_room.stop(_GOODBYE_SECONDS)
                await fleet.listen()
                log.info("%s is ready on %s after %.2f s", config.model.name, address, time.perf_counter() - began)
                await signals.stop.wait()
    finally:
        if fleet is not None:
            await fleet.stop(signals)
        await waiting_room.stop(_GOODBYE_SECONDS)
        reservation.close()
    log.info("stopped")


def _for_workers(config: ServerConfig, port: int, path: Path) -> ServerConfig:
    model = config.model.model_copy(update={"uri": path.absolute().as_uri(), "sha256": None})
    return ServerConfig(model=model, server=config.server.model_copy(update={"port": port}))


class Worker:
    """One worker process and the conversation with it."""

    def __init__(self, process: Process) -> None:
        self.process = process

    @classmethod
    async def spawn(cls, config: ServerConfig, counters: SharedCounters, *, slot: int) -> Worker:
        """Starts a process that loads the model and warms it up."""
        document = json.dumps(config.model_dump(mode="json", by_alias=True))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "openclaw.serving.worker", document, str(counters.descriptor), str(slot),
            stdin=PIPE, stdout=PIPE, pass_fds=(counters.descriptor,),
        )  # fmt: skip
        return cls(process)

    async def warm(self) -> None:
        """Waits for the warm-up.

        Raises:
            StartupError: what the worker says, or what its end tells.
        """
        line = await self._line()
        if line == "warm":
            return
        code = await self.process.wait()
        if line.startswith("{"):
            failure = json.loads(line)
            raise STARTUP_ERRORS.get(failure["reason"], ModelInvalid)(failure["message"])
        if code == -signal.SIGKILL:
            raise OutOfMemory(
                "a worker was killed while it loaded the model, most likely for its memory; raise the limit"
            )
        raise ModelInvalid(
            f"a worker ended with exit code {code} while it loaded the model; the log above has the reason"
        )

    async def listen(self) -> None:
        """Lets it answer, and waits until it does; one that dies instead is noticed by who waits for its end."""
        self.tell("listen")
        await self._line()

    def tell(self, word: str) -> None:
        """Writes one word; a worker that is gone does not hear it."""
        assert self.process.stdin is not None
        if self.process.returncode is None and not self.process.stdin.is_closing():
            self.process.stdin.write(f"{word}\n".encode())

    async def _line(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode("utf-8", "replace").strip()


class Fleet:
    """All workers; one that dies is started again, later and later if it dies soon."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._counters = SharedCounters(config.server.workers)
        self._workers: list[Worker] = []
        self._keepers: list[asyncio.Task[None]] = []

    async def warm(self) -> bool:
        """Starts every worker and waits until all are warm."""
        for slot in range(self._config.server.workers):
            self._workers.append(await Worker.spawn(self._config, self._counters, slot=slot))
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
        options = self._config.server
        ends = asyncio.gather(*(worker.process.wait() for worker in self._workers))
        hurry = asyncio.create_task(self._pass_on(signals))
        try:
            async with asyncio.timeout(
                options.drain_delay_seconds + options.drain_timeout_seconds + EXIT_SLACK_SECONDS
            ):
                await ends
        except TimeoutError:
            for worker in self._workers:
                if worker.process.returncode is None:
                    log.warning("worker %d did not stop in time and is killed", worker.process.pid)
                    worker.process.kill()
        finally:
            hurry.cancel()

    async def _pass_on(self, signals: StopSignals) -> None:
        await signals.hurry.wait()
        for worker in self._workers:
            worker.tell("hurry")

    async def _keep(self, index: int) -> None:
        delay, longest = RESTART_SECONDS
        while True:
            worker, began = self._workers[index], time.monotonic()
            code = await worker.process.wait()
            self._counters.slot(index).leave()
            if time.monotonic() - began > STEADY_SECONDS:
                delay = RESTART_SECONDS[0]
            log.warning(
                "worker %d ended with exit code %d; it is started again in %.1f s", worker.process.pid, code, delay
            )
            await asyncio.sleep(delay)
            delay = min(2 * delay, longest)
            self._workers[index] = worker = await Worker.spawn(self._config, self._counters, slot=index)
            try:
                await worker.warm()
            except StartupError as error:
                log.error("worker %d did not start: %s", worker.process.pid, error)
            else:
                await worker.listen()
                log.info("worker %d answers again", worker.process.pid)
