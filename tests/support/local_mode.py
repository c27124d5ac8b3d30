"""Drives `openclaw local` as a user does: by its command line, with real servers and a real gateway."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import onnx
import psutil
from onnx import TensorProto, helper

from openclaw_operator.local.api import State
from openclaw_operator.local.client import Client
from openclaw_operator.local.liveness import is_alive
from openclaw_operator.local.report import Standing, standing


def write_model(path: Path, *, factor: float) -> Path:
    """A model that multiplies its input `x` [n, 4] by `factor`."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    weight = helper.make_tensor("k", TensorProto.FLOAT, [1], [factor])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "k"], ["y"])], "scale", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def service(name: str, uri: str, **spec: Any) -> dict[str, Any]:
    """A service whose servers drain for a second only, unless `spec` says otherwise."""
    spec = {"runtime": {"args": ["--drain-delay", "1"]}} | spec
    return {
        "apiVersion": "openclaw.io/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"model": {"uri": uri}, **spec},
    }


def write(path: Path, *documents: dict[str, Any]) -> Path:
    """Saves documents as editors do: another file takes the name. JSON is YAML."""
    fresh = path.with_suffix(".new")
    fresh.write_text("\n---\n".join(json.dumps(document) for document in documents))
    fresh.replace(path)
    return path


@dataclass
class LocalMode:
    """One instance of local mode, in folders of its own."""

    folder: Path
    port: int = 0
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        own = {"OPENCLAW_LOCAL_DIR": str(self.home), "OPENCLAW_CACHE_DIR": str(self.folder / "cache")}
        self.environment = {**os.environ, **own}

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def run(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs `openclaw local ...` to its end."""
        return subprocess.run(
            self.command(*arguments), env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "openclaw", "local", *arguments]

    def up(self, *files: Path) -> subprocess.CompletedProcess[str]:
        """Brings files up with a daemon, and remembers its port."""
        named = [argument for file in files for argument in ("-f", str(file))]
        ended = self.run("up", *named, "--detach", "--port", "0", "--timeout", "30")
        self.port = self.told()["port"]
        return ended

    def told(self) -> dict[str, Any]:
        """What the daemon wrote about itself."""
        told: dict[str, Any] = json.loads((self.home / "daemon.lock").read_text())
        return told

    async def state(self) -> State:
        """What the daemon tells: what `get` shows, without a process for each look."""
        async with Client(self.home / "control.sock") as client:
            return await client.state()

    async def get(self, name: str) -> dict[str, Any] | None:
        found = (each for each in (await self.state()).services if each["metadata"]["name"] == name)
        return next(found, None)

    async def ready(self, name: str) -> Standing:
        """How a service stands in its present generation."""
        found = await self.get(name)
        assert found is not None, f"there is no service {name}"
        return standing(found)

    def members(self) -> list[psutil.Process]:
        """The daemon and every process that belongs to it."""
        daemon = psutil.Process(self.told()["pid"])
        return [each for each in (daemon, *daemon.children(recursive=True)) if is_alive(each)]

    def servers(self, name: str) -> list[psutil.Process]:
        """The server processes of a service."""
        room = str(self.home / "pods" / f"default.{name}-a-")
        return [each for each in self.members() if any(part.startswith(f"--config={room}") for part in _command(each))]

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/default/{name}/v2/models/{name}"

    async def infer(self, session: aiohttp.ClientSession, name: str) -> list[float]:
        """The model's answer to 1, 2, 3, 4. Raises where there is none."""
        data = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
        async with session.post(f"{self.url(name)}/infer", json={"inputs": [data]}) as response:
            if response.status != 200:
                raise RuntimeError(f"{response.status}: {await response.text()}")
            answer: list[float] = (await response.json())["outputs"][0]["data"]
            return answer


@dataclass
class Load:
    """Requests sent without a pause, and what came of them."""

    answers: list[list[float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@asynccontextmanager
async def load(local: LocalMode, name: str, *, clients: int = 2) -> AsyncIterator[Load]:
    """Keeps a service under load while the block runs."""
    result = Load()
    done = asyncio.Event()

    async def client() -> None:
        async with aiohttp.ClientSession() as session:
            while not done.is_set():
                try:
                    result.answers.append(await local.infer(session, name))
                except (aiohttp.ClientError, RuntimeError, TimeoutError) as failure:
                    result.failures.append(repr(failure))
                await asyncio.sleep(0.005)

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    try:
        yield result
    finally:
        done.set()
        await asyncio.gather(*tasks)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it ended since it was listed
        return []


def is_gone(processes: Iterable[psutil.Process]) -> bool:
    return not any(map(is_alive, processes))
