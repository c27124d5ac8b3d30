"""One of several serving processes: what the fork server becomes, and :mod:`openclaw.serving.workers` talks to.

The conversation is in lines: the parent writes ``listen``, ``drain``, ``hurry``, and its death ends it; a worker
writes ``warm``, ``listening``, or the JSON line of its failure.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Sequence
from typing import NoReturn

from openclaw.config import ServerConfig
from openclaw.errors import StartupError
from openclaw.serving.counters import SharedCounters
from openclaw.serving.frontends import Frontends
from openclaw.serving.lifecycle import drain, listen, make_repository, until_stopped
from openclaw.serving.loader import load_local
from openclaw.serving.loading import Loaded
from openclaw.serving.process import leave, run_loop
from openclaw.serving.signals import StopSignals
from openclaw.serving.telemetry import Telemetry
from openclaw.serving.termination import failure_line
from openclaw.serving.threads import in_thread


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
            await self._signals.stop.wait()
            await drain(repository, frontends, signals=self._signals, options=options)
            await frontends.stop(options.drain_timeout_seconds)
            self._telemetry.stop()
        orders.cancel()

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
