"""A cluster that outlives the command that asked for it: `up` starts one, `down` ends it.

One process in the background holds the cluster, and its end is the cluster's end, whatever ends it. What others
have to know about it lies in `cluster.json` beside its logs, from the moment it is ready.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from testcluster.controlplane import ControlPlane
from testcluster.errors import ComponentError
from testcluster.node import Node
from testcluster.waiting import until

_START_TIMEOUT = 600  # seconds; a node may first have to bootstrap its base image


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    pid: int
    """Process whose end is the cluster's end."""
    kubeconfig: str
    """Of an administrator."""
    enter: list[str]
    """Command prefix that leads inside; empty where there is no inside."""


def running(directory: Path) -> Cluster | None:
    """The cluster of this folder, if one runs."""
    try:
        cluster = Cluster(**json.loads(_state(directory).read_text()))
        command = Path(f"/proc/{cluster.pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return None
    # The number may since belong to another process.
    return cluster if str(directory).encode() in command else None


async def up(directory: Path, *, node: bool, fake_nodes: int, say: Callable[[str], None]) -> Cluster:
    """Start a cluster in the background, in an empty `directory`; returns when it is ready.

    Raises:
        ComponentError: it did not become ready; the end of its log is in the message.
    """
    if cluster := running(directory):
        say("already up")
        return cluster
    process = _spawn(directory, [f"--fake-nodes={fake_nodes}", *(["--node"] if node else [])])

    async def ready() -> Cluster | None:
        if process.poll() is not None:
            raise ComponentError(f"the cluster did not come up: {_log(directory).read_text()[-3000:]}")
        return running(directory)

    try:
        cluster = await until(ready, "the cluster is ready", timeout=_START_TIMEOUT)
    except BaseException:
        process.terminate()  # nobody would know of it
        raise
    assert cluster is not None
    return cluster


def _spawn(directory: Path, flags: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the process that holds the cluster; it lives on when this one ends."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    command = [sys.executable, "-m", "testcluster", "run", f"--directory={directory}", *flags]
    with _log(directory).open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


async def down(directory: Path) -> bool:
    """End the cluster of this folder and remove the folder; whether there was one."""
    cluster = running(directory)
    if cluster:
        os.kill(cluster.pid, signal.SIGTERM)

        async def gone() -> bool:
            return running(directory) is None

        await until(gone, "the cluster is gone", timeout=60)
    shutil.rmtree(directory, ignore_errors=True)
    return cluster is not None


async def run(directory: Path, *, node: bool, fake_nodes: int, say: Callable[[str], None]) -> None:
    """Hold a cluster until this process gets SIGTERM or SIGINT."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with contextlib.AsyncExitStack() as stack:
        enter: tuple[str, ...] = ()
        if node:
            whole = await stack.enter_async_context(Node(directory, say=say))
            plane, enter = whole.plane, whole.enter
        else:
            plane = await stack.enter_async_context(ControlPlane(directory))
        if fake_nodes:
            await plane.add_fake_nodes(fake_nodes)
        cluster = Cluster(pid=os.getpid(), kubeconfig=str(plane.kubeconfig), enter=list(enter))
        written = directory / "cluster.json.new"
        written.write_text(json.dumps(asdict(cluster)))
        written.replace(_state(directory))
        say(f"ready: {plane.server}")
        await ended.wait()


def _state(directory: Path) -> Path:
    return directory / "cluster.json"


def _log(directory: Path) -> Path:
    return directory / "supervisor.log"
