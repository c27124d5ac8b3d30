"""`openclaw local up`: starts the daemon, or finds it, hands it the files, and tells how the services come up."""

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from openclaw_operator.local import gateway, report
from openclaw_operator.local.client import Client
from openclaw_operator.local.daemon import LOG_FORMAT, Daemon
from openclaw_operator.local.failures import ClientError, HomeError, UpError
from openclaw_operator.local.home import Home
from openclaw_operator.local.report import Standing
from openclaw_operator.names import Key, Manifest

Say = Callable[[str], None]

DEFAULT_PORT = 8080
_SEARCHED_PORTS = 100
_POLL_SECONDS = 0.2
_START_SECONDS = 30.0
_REMIND_SECONDS = 10.0


@dataclass
class Follower:
    """Tells how services come up: a line for each change, and a reminder while nothing changes."""

    client: Client
    keys: frozenset[Key] | None
    """The services to tell of; None tells of all."""
    say: Say
    _known: dict[Key, Standing] = field(default_factory=dict)
    _since: dict[Key, float] = field(default_factory=dict)
    _said: float = field(default_factory=time.monotonic)

    async def look(self) -> bool:
        """Tells what is new. Returns whether every service is Ready or has failed."""
        services = {report.key_of(each): each for each in (await self.client.state()).services}
        for key, service in services.items():
            if self.keys is None or key in self.keys:
                await self._compare(key, service)
        for key in self._known.keys() - services.keys():
            self._say(f"{report.shown(key)} is deleted")
            del self._known[key]
        waiting = [key for key, stands in self._known.items() if not (stands.ready or stands.failed)]
        if waiting and time.monotonic() - self._said > _REMIND_SECONDS:
            seconds = time.monotonic() - min(self._since[key] for key in waiting)
            self._say(f"still waiting after {seconds:.0f} s for {', '.join(map(report.shown, waiting))}")
        return not waiting

    @property
    def failed(self) -> list[Key]:
        """Services that are not Ready."""
        return [key for key, stands in self._known.items() if not stands.ready]

    async def _compare(self, key: Key, service: Manifest) -> None:
        before, stands = self._known.get(key), report.standing(service)
        if before is None or (before.ready and not stands.ready):
            self._since[key] = time.monotonic()
        self._known[key] = stands
        if stands == before or stands.reason == report.PENDING:
            return
        name = report.shown(key)
        if not stands.ready:
            self._say(f"{name}: {stands.reason}: {stands.message}")
        elif before is None or not before.ready:
            seconds = time.monotonic() - self._since[key]
            self._say(f"{name} is Ready after {seconds:.1f} s: {service['status']['url']}")
            self._say(f"  {report.curl(service, await _metadata(service))}")

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        self.say(line)


async def foreground(home: Home, files: Sequence[Path], *, port: int, say: Say) -> None:
    """Runs the daemon in this process until Ctrl-C, or until `down` is asked for elsewhere."""
    logging.basicConfig(filename=home.daemon_log, level=logging.INFO, format=LOG_FORMAT)
    ready = asyncio.Event()
    daemon = Daemon(home, port=port)
    running = asyncio.create_task(daemon.run(ready.set))
    started = asyncio.create_task(ready.wait())
    await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    if not running.done():
        try:
            await _tell_until_ended(home, files, running=running, say=say)
        finally:
            say("stopping")
            daemon.down()
            await running
    await running


async def _tell_until_ended(home: Home, files: Sequence[Path], *, running: asyncio.Task[None], say: Say) -> None:
    async with Client(home.control) as client:
        await client.up(files, os.environ)
        follower = Follower(client, None, say)
        told = False
        while not running.done():
            try:
                settled = await follower.look()
            except ClientError:
                break  # it is going down
            if settled and not told:
                told = True
                say("files are watched: save one and its services are rolled; Ctrl-C ends everything")
            await asyncio.wait({running}, timeout=_POLL_SECONDS)


async def detached(home: Home, *, port: int, say: Say) -> None:
    """Starts a daemon that outlives this process; returns once it answers.

    Raises:
        UpError: it does not come up.
    """
    with home.daemon_log.open("w+b") as log:
        pid = _spawn_daemon(home, port, log.fileno())
        deadline = time.monotonic() + _START_SECONDS
        while not (home.control.exists() and home.daemon()):
            if _has_ended(pid) and not home.daemon():
                log.seek(0)
                said = log.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
                raise UpError(f"the daemon ended: {said[-1]}")
            if time.monotonic() > deadline:
                raise UpError(f"the daemon does not answer after {_START_SECONDS:.0f} s: see {home.daemon_log}")
            await asyncio.sleep(_POLL_SECONDS / 4)
    say(f"the daemon runs (process {pid}); `openclaw local down` ends it")


def _spawn_daemon(home: Home, port: int, log: int) -> int:
    """Starts the daemon without an object that would wait for it, or kill it, when this process ends."""
    command = [sys.executable, "-P", "-m", "openclaw_operator.local", str(port)]
    places = {"OPENCLAW_LOCAL_DIR": str(home.folder), "OPENCLAW_CACHE_DIR": str(home.cache)}
    return os.posix_spawn(
        sys.executable,
        command,
        {**os.environ, **places},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ],
        setsid=True,
    )


def _has_ended(pid: int) -> bool:
    """Whether a child of this process has ended; asked once more after that, it raises."""
    return os.waitpid(pid, os.WNOHANG)[0] != 0


async def apply(home: Home, files: Sequence[Path], *, timeout: float, say: Say) -> bool:
    """Hands files to the running daemon and waits for their services. Returns whether all are Ready.

    Args:
        home: The runtime folder.
        files: Absolute paths.
        timeout: Seconds to wait; 0 does not wait.
        say: Prints a line.
    """
    async with Client(home.control) as client:
        follower = Follower(client, frozenset(await client.up(files, os.environ)), say)
        if not timeout:
            return True
        deadline = time.monotonic() + timeout
        while not await follower.look():
            if time.monotonic() > deadline:
                raise UpError(
                    f"{', '.join(map(report.shown, follower.failed))} not Ready after {timeout:.0f} s; "
                    "`openclaw local get` shows how it stands"
                )
            await asyncio.sleep(_POLL_SECONDS)
        return not follower.failed


def free_port(asked: int | None, say: Say) -> int:
    """The port to listen on: the one asked for, or 8080, or the next free one.

    Raises:
        UpError: the port that was asked for is taken.
    """
    if asked:
        if not _is_free(asked):
            raise UpError(f"port {asked} is taken by {gateway.holder(asked)}: choose another one with --port")
        return asked
    if asked == 0:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])
    for port in range(DEFAULT_PORT, DEFAULT_PORT + _SEARCHED_PORTS):
        if _is_free(port):
            if port != DEFAULT_PORT:
                say(f"port {DEFAULT_PORT} is taken by {gateway.holder(DEFAULT_PORT)}; the gateway uses {port}")
            return port
    raise UpError(f"ports {DEFAULT_PORT} to {DEFAULT_PORT + _SEARCHED_PORTS - 1} are all taken: choose one with --port")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def _metadata(service: Manifest) -> dict[str, Any] | None:
    """The model's metadata, asked through the gateway."""
    url = f"{service['status']['url']}/v2/models/{report.model_name(service)}"
    try:
        async with aiohttp.request("GET", url, timeout=aiohttp.ClientTimeout(total=5)) as response:
            answer = await response.json()
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


async def take(home: Home) -> bool:
    """Prepares the runtime folder. Returns whether a daemon runs in it already; else what one left is removed."""
    home.prepare()
    if home.daemon():
        return True
    await home.clean()
    home.prepare()
    return False


async def acquire(home: Home) -> None:
    """Takes the runtime folder for this process.

    Raises:
        HomeError: another process was faster.
    """
    if not await home.acquire():
        raise HomeError(f"another `openclaw local up` is starting in {home.folder}: run the command again")
