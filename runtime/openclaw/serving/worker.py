"""One of several serving processes: what :mod:`openclaw.serving.workers` starts and talks to.

python -m openclaw.serving.worker CONFIG_JSON DESCRIPTOR SLOT

DESCRIPTOR is that of the counters which all workers share, SLOT this one's place in them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from openclaw.config import ServerConfig, parse
from openclaw.errors import StartupError
from openclaw.serving import logs
from openclaw.serving.counters import SharedCounters
from openclaw.serving.endpoint import Endpoint
from openclaw.serving.lifecycle import bring_up, cores_of, drain, listen, start, until_stopped
from openclaw.serving.process import leave, run_loop
from openclaw.serving.signals import StopSignals
from openclaw.serving.telemetry import Telemetry
from openclaw.serving.termination import failure_line
from openclaw.storage.cache import default_folder


async def work(config: ServerConfig, telemetry: Telemetry) -> None:
    """Loads, warms up, says so, listens when told to, and drains when told to or when the parent is gone.

    Raises:
        StartupError: the model could not be brought up.
    """
    signals, may_listen = StopSignals(), asyncio.Event()
    loop = asyncio.get_running_loop()
    # Ctrl-C reaches the whole process group; the parent hears it too and says what to do.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, signals.stop.set)
    orders = asyncio.create_task(_obey(signals, may_listen))
    telemetry.start()
    endpoint = Endpoint(config.model.name, telemetry, concurrency=cores_of(config))
    loaded = await until_stopped(bring_up(config, default_folder(), endpoint), signals)
    if loaded is None:
        return
    telemetry.settle()
    say("warm")
    if await until_stopped(may_listen.wait(), signals):
        endpoint.open(loaded.model, quickest=loaded.quickest)
        server = await start(endpoint, listen(config.server, shared=True), config.server)
        say("listening")
        await signals.stop.wait()
        server.drain()
        await drain(endpoint, signals, config.server)
        await server.stop(config.server.drain_timeout_seconds)
        telemetry.stop()
    orders.cancel()


async def _obey(signals: StopSignals, may_listen: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        match line.strip():
            case b"listen":
                may_listen.set()
            case b"drain":
                signals.stop.set()
            case b"hurry":
                signals.stop.set()
                signals.hurry.set()
    # The parent is gone, and with it the one who would have said so.
    signals.stop.set()
    signals.hurry.set()


def say(line: str) -> None:
    """Tells the parent."""
    print(line, flush=True)


def main() -> None:
    """Runs one worker; its failure goes to the parent as one JSON line."""
    logs.configure(os.environ)
    try:
        document, descriptor, slot = sys.argv[1:]
        config = parse(json.loads(document))
        counters = SharedCounters(config.server.workers, descriptor=int(descriptor))
        run_loop(work(config, Telemetry(counters, slot=int(slot))))
    except StartupError as error:
        say(failure_line(error))
        leave(error.exit_code)
    leave(0)


if __name__ == "__main__":
    main()
