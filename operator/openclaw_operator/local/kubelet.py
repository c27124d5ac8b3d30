"""Runs pods as processes: starts, probes, restarts and ends them, and reports their status to the cluster."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import aiohttp

from openclaw_operator import names
from openclaw_operator.cluster.memory import MemoryCluster
from openclaw_operator.cluster.port import ApiError
from openclaw_operator.local import podstatus
from openclaw_operator.local.failures import RefusedError
from openclaw_operator.local.home import Home
from openclaw_operator.local.launch import Launch, Room, launch, step_of
from openclaw_operator.local.podstatus import Container, Ended, Waiting
from openclaw_operator.local.probe import Check, verdicts
from openclaw_operator.local.process import Process
from openclaw_operator.local.race import race
from openclaw_operator.names import Manifest, Ref

log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0  # after a container that could not even be created
_WORDS = 2000  # bytes of a log's end that stand for a termination message


class Router(Protocol):
    """Who sends requests to pods."""

    async def settled(self) -> None:
        """Returns once requests go where the cluster's present state says."""
        ...


class Kubelet:
    """Runs every pod of a cluster."""

    def __init__(self, cluster: MemoryCluster, home: Home, *, router: Router, clock: Callable[[], str]) -> None:
        """
        Args:
            cluster: Where pods are.
            home: Folders for files and logs.
            router: Who sends them requests.
            clock: The time, RFC 3339.
        """
        self.cluster = cluster
        self.home = home
        self.router = router
        self.clock = clock
        self.environment: Mapping[str, str] = dict(os.environ)
        """The user's environment; the credentials in it are passed on to servers."""
        self.hurried = asyncio.Event()
        """Set when everything ends: nobody waits for requests that still come."""
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
        self._runs: dict[str, PodRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def seen(self, event: str, manifest: Manifest) -> None:
        """Takes an event of the cluster."""
        if manifest["kind"] != names.POD.name:
            return
        uid = manifest["metadata"]["uid"]
        if event == "ADDED":
            run = self._runs[uid] = PodRun(manifest, self)
            task = asyncio.create_task(run.run(), name=f"pod {run.name}")
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        elif event == "DELETED":
            self._runs.pop(uid, None)
        elif manifest["metadata"].get("deletionTimestamp") and uid in self._runs:
            self._runs[uid].leaving.set()

    def usage(self, uid: str) -> tuple[float, int] | None:
        """CPU seconds used and bytes of memory in use by a pod; None while it does not run."""
        run = self._runs.get(uid)
        return run.process.usage() if run and run.process else None

    async def stop(self) -> None:
        """Ends every pod, fast, and returns once none is left."""
        self.hurried.set()
        for run in self._runs.values():
            run.leaving.set()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.session.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()):
            log.error("%s failed", task.get_name(), exc_info=failure)


class PodRun:
    """The life of one pod, from its creation to its removal."""

    def __init__(self, pod: Manifest, kubelet: Kubelet) -> None:
        self.leaving = asyncio.Event()
        self.process: Process | None = None
        self._pod = pod
        self._kubelet = kubelet
        self._container = Container()
        self._step = Container() if step_of(pod) else None
        """The state of the step before the server, where there is one; the server's turn comes once it completed."""
        metadata = pod["metadata"]
        self.name: str = metadata["name"]
        self._ref = Ref(names.POD.name, metadata["namespace"], self.name)
        self._room: Room = kubelet.home.room(metadata["namespace"], self.name)
        self._log: Path = kubelet.home.log(
            metadata["namespace"], metadata["labels"].get(names.SERVICE_LABEL, "none"), self.name
        )

    @property
    def _serves(self) -> bool:
        """Whether it is the server's turn."""
        return self._step is None or self._step.completed

    @property
    def _current(self) -> Container:
        """The state of the container whose turn it is."""
        return self._container if self._serves or self._step is None else self._step

    async def run(self) -> None:
        """Starts the container again and again until the pod is to leave; then removes the pod.

        Before it the step, again and again until it succeeds.
        """
        failures = 0
        try:
            while not self.leaving.is_set():
                began = asyncio.get_running_loop().time()
                ended = await self._attempt()
                if self.leaving.is_set():
                    break
                if not self._serves and ended and ended.exit_code == 0:
                    self._report(replace(self._current, completed=True))
                    failures = 0
                    continue
                ran = asyncio.get_running_loop().time() - began
                failures = 1 if ran >= podstatus.BACKOFF_RESET else failures + 1
                delay = podstatus.backoff(failures) if ended else _RETRY_SECONDS
                if ended:
                    said = f"back-off {delay:.0f} s before the container is started again"
                    self._report(replace(self._current, waiting=Waiting("CrashLoopBackOff", said)))
                await self._sleep(delay)
                if ended:
                    self._keep(replace(self._current, restarts=self._current.restarts + 1))
        finally:
            self._kubelet.home.discard(self._room)
            await self._kubelet.cluster.delete(self._pod, grace=False)

    async def _attempt(self) -> Ended | None:
        """Runs the container whose turn it is once. Returns how it ended; None where it could not be created."""
        # Free now, and taken by somebody else by the time the server binds it: then it ends and gets another one.
        port = _free_port()
        try:
            process = await self._start(port)
        except RefusedError as refused:
            self._report(replace(self._current, waiting=Waiting("CreateContainerConfigError", str(refused))))
            return None
        except OSError as error:
            self._report(replace(self._current, waiting=Waiting("CreateContainerError", str(error))))
            return None
        # What the step uses is not the service's load.
        self.process = process if self._serves else None
        since = self._kubelet.clock()
        fresh = Container(restarts=self._current.restarts, last=self._current.last)
        self._report(replace(fresh, running=since, pid=process.pid, port=port if self._serves else 0))
        try:
            code = await self._supervise(process, port)
        finally:
            self.process = None
        ended = Ended(code, self._last_words(), since, self._kubelet.clock())
        self._report(replace(fresh, last=ended, waiting=Waiting("CrashLoopBackOff")))
        return ended

    async def _start(self, port: int) -> Process:
        cluster, namespace = self._kubelet.cluster, self._ref.namespace
        configs = {
            each["metadata"]["name"]: each
            for each in cluster.all(names.CONFIG_MAP.name)
            if each["metadata"]["namespace"] == namespace
        }
        plan = launch(
            self._pod,
            configs=configs,
            room=self._room,
            environment=self._kubelet.environment,
            port=port,
            step=not self._serves,
        )
        await asyncio.to_thread(_furnish, plan, self._room)
        return await Process.start(plan.command, env=plan.env, cwd=self._room.folder, log=self._log)

    async def _supervise(self, process: Process, port: int) -> int:
        """Probes the process until it ends, must be restarted, or the pod is to leave. Returns its exit code."""
        exited = asyncio.create_task(process.wait())
        leaving = asyncio.create_task(self.leaving.wait())
        unhealthy = asyncio.create_task(self._probe(port))
        try:
            await asyncio.wait({exited, leaving, unhealthy}, return_when=asyncio.FIRST_COMPLETED)
            if unhealthy.done() and not exited.done():
                log.warning("pod %s is restarted: %s", self.name, unhealthy.result())
            unhealthy.cancel()  # a server that is to end must not be found ready once more
            return await (exited if exited.done() else self._end(process))
        finally:
            for task in (exited, leaving, unhealthy):
                task.cancel()
            await asyncio.gather(exited, leaving, unhealthy, return_exceptions=True)

    async def _end(self, process: Process) -> int:
        """Ends the process: first no request reaches it any more, then it is asked to end."""
        hurried = self._kubelet.hurried
        if not hurried.is_set():
            self._report(replace(self._current, ready=False, routed=False))
            await race(self._kubelet.router.settled(), hurried.wait())
        return await process.stop(
            grace=float(self._pod["spec"].get("terminationGracePeriodSeconds", 30)), hurry=hurried
        )

    async def _probe(self, port: int) -> str:
        """Makes the container started and ready, or not, as its probes say. Returns why it must be restarted."""
        if not self._serves:
            return await _never()
        spec = self._pod["spec"]["containers"][0]
        session = self._kubelet.session
        startup = Check.of(spec, "startupProbe")
        if startup:
            async for verdict in verdicts(startup, port, session):
                if verdict.passing is False:
                    return f"it did not start in time: {verdict.detail}"
                if verdict.passing:
                    break
        self._report(replace(self._container, started=True))
        readiness = asyncio.create_task(self._follow_readiness(Check.of(spec, "readinessProbe"), port))
        try:
            return await self._until_unhealthy(Check.of(spec, "livenessProbe"), port)
        finally:
            readiness.cancel()
            await asyncio.gather(readiness, return_exceptions=True)

    async def _until_unhealthy(self, check: Check | None, port: int) -> str:
        if check:
            async for verdict in verdicts(check, port, self._kubelet.session):
                if verdict.passing is False:
                    return f"it is not alive: {verdict.detail}"
        return await _never()

    async def _follow_readiness(self, check: Check | None, port: int) -> None:
        if check is None:
            await self._become_ready()
            return
        async for verdict in verdicts(check, port, self._kubelet.session):
            if verdict.passing and not self._container.ready:
                await self._become_ready()
            elif verdict.passing is False and self._container.ready:
                log.warning("pod %s is not ready: %s", self.name, verdict.detail)
                self._report(replace(self._container, ready=False, routed=False))

    async def _become_ready(self) -> None:
        """Ready is said only once requests really reach the pod: a rollout deletes an old pod on the strength of it."""
        self._report(replace(self._container, ready=True))
        await self._kubelet.router.settled()
        self._report(replace(self._container, routed=True))

    def _keep(self, container: Container) -> None:
        """Takes a state as that of the container whose turn it is."""
        if self._serves:
            self._container = container
        else:
            self._step = container

    def _report(self, container: Container) -> None:
        self._keep(container)
        known = self._kubelet.cluster.get(self._ref)
        if known is None or known["metadata"]["uid"] != self._pod["metadata"]["uid"]:
            return
        status = podstatus.pod_status(known, self._container, now=self._kubelet.clock(), step=self._step)
        try:
            self._kubelet.cluster.write_status(self._ref, status)
        except ApiError as error:
            log.warning("the status of pod %s could not be written: %s", self.name, error)

    def _last_words(self) -> str:
        """What the container wrote to its termination log; without it the end of its log."""
        try:
            written = self._room.termination_log.read_text(encoding="utf-8", errors="replace").strip()
            return written[:4096] or _tail(self._log)
        except OSError:
            return _tail(self._log)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.leaving.wait()
        except TimeoutError:
            return


async def _never() -> str:
    never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    return await never


def _furnish(plan: Launch, room: Room) -> None:
    for folder in plan.folders:
        folder.mkdir(parents=True, exist_ok=True)
    for file, text in plan.files.items():
        file.write_text(text, encoding="utf-8")
    room.termination_log.write_bytes(b"")


def _tail(file: Path) -> str:
    try:
        with file.open("rb") as log_file:
            log_file.seek(max(file.stat().st_size - _WORDS, 0))
            return log_file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
