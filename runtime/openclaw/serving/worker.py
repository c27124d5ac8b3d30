"""One of several serving processes: what the fork server becomes, and :mod:`openclaw.serving.workers` talks to.

The conversation is in lines: the parent writes ``listen``, ``drain``, ``hurry``, and its death ends it; a worker
writes ``warm``, ``listening``, or the JSON line of its failure.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Sequence
from typing import NoReturn

from openclaw.config import ServerConfig
from openclaw.errors import StartupError
from openclaw.memory.accounting import Account
from openclaw.serving.counters import SharedCounters
from openclaw.serving.frontends import Frontends
from openclaw.serving.lifecycle import drain, listen, make_repository, until_stopped
from openclaw.serving.loader import Loader, load_local
from openclaw.serving.loading import Loaded
from openclaw.serving.process import leave, run_loop
from openclaw.serving.residence import TEND_SECONDS
from openclaw.serving.signals import StopSignals
from openclaw.serving.telemetry import Telemetry
from openclaw.serving.termination import failure_line
from openclaw.serving.threads import in_thread
from openclaw.serving.warmup import warm_up
from openclaw.storage.cache import default_folder

log = logging.getLogger(__name__)


def run_worker(
    config: ServerConfig,
    counters: SharedCounters,
    *,
    slot: int,
    models: Sequence[Loaded] | None,
    conversation: socket.socket,
) -> NoReturn:
    """Runs one worker in a process that was just forked.

    Args:
        config: with the models as local files.
        counters: that all workers share.
        slot: this worker's place in them.
        models: that were loaded before the fork; None: to be loaded here.
        conversation: with the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        run_loop(_Worker(config, Telemetry(counters, slot=slot)).run(models, conversation))
    except StartupError as error:
        conversation.setblocking(True)
        conversation.send(failure_line(error).encode() + b"\n")
        leave(error.exit_code)
    leave(0)


class _Worker:
    def __init__(self, config: ServerConfig, telemetry: Telemetry) -> None:
        self._config = config
        self._telemetry = telemetry
        self._signals = StopSignals()
        self._may_listen = asyncio.Event()

    async def run(self, models: Sequence[Loaded] | None, conversation: socket.socket) -> None:
        """Listens when told to, and drains when told to or when the parent is gone. Raises StartupError."""
        loop = asyncio.get_running_loop()
        # Ctrl-C reaches the whole process group; the parent hears it too and says what to do.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGTERM, self._signals.stop.set)
        reader, writer = await asyncio.open_connection(sock=conversation.dup())
        orders = asyncio.create_task(self._obey(reader))
        self._telemetry.start()
        repository = make_repository(self._config, self._telemetry)
        if models is None:
            models = (
                await until_stopped(
                    in_thread(load_local, self._config, copies=self._config.server.workers), self._signals
                )
                or ()
            )
        else:
            await in_thread(_warm_up, self._config, models)
        await repository.measure_hop()
        for loaded in models:
            repository.put(loaded)
        self._telemetry.settle()
        writer.write(b"warm\n")
        if await until_stopped(self._may_listen.wait(), self._signals):
            options = self._config.server
            listener = listen(options, shared=True)
            frontends = await Frontends.start(repository, [listener], options)
            repository.open()
            writer.write(b"listening\n")
            following = asyncio.create_task(self._follow(repository.account))
            await self._signals.stop.wait()
            following.cancel()
            await drain(repository, frontends, signals=self._signals, options=options)
            await frontends.stop(options.drain_timeout_seconds)
            self._telemetry.stop()
        orders.cancel()

    async def _follow(self, account: Account) -> None:
        """Lets requests have what memory is granted, until cancelled; the models stay in their tiers."""
        loader = Loader(self._config, default_folder())
        while account.budget is not None:
            await asyncio.sleep(TEND_SECONDS)
            budget = await asyncio.to_thread(loader.budget)
            if budget != account.budget:
                log.info("the budget of memory is %s now", "without bound" if budget is None else f"{budget:,} bytes")
                account.budget = budget
                self._telemetry.metrics.budget(budget)

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            match line.strip():
                case b"listen":
                    self._may_listen.set()
                case b"drain":
                    self._signals.stop.set()
                case b"hurry":
                    self._signals.stop.set()
                    self._signals.hurry.set()
        # The parent is gone, and with it the one who would have said so.
        self._signals.stop.set()
        self._signals.hurry.set()


def _warm_up(config: ServerConfig, models: Sequence[Loaded]) -> None:
    """Runs each model once in this process, where its threads and its arena are new; raises ModelWarmupFailed."""
    requested = {model.name: model.warmup.requests for model in config.all_models}
    for loaded in models:
        warm_up(loaded.model, min(1, requested[loaded.config.name]))
