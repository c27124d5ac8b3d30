"""A pod that talks to services, as any other pod of the cluster would."""

import asyncio
import inspect
import json
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testcluster import CommandError
from testcluster.process import run
from testcluster.toolchain import require

from world import load as load_script
from world.images import RUNTIME
from world.namespace import Manifest, Namespace

RATE = 50
"""Requests a second of a constant load."""

_NAME = "client"
_FILES = "/files"

_CLASSIFY = """
import json, sys
sys.path.insert(0, {folder!r})
import classify
images, digits = classify.held_out(classify.Path({held_out!r}))
with classify.Client({url!r}) as client:
    answers = [client.classify(image) for image in images]
print(json.dumps([[answer.digit, answer.probability] for answer in answers]))
"""

Answers = list[tuple[int, float]]
"""Of every held-out image, the digit and its probability."""


@dataclass
class Load:
    """What came of a constant load; filled when it has ended.

    Attributes:
        answers: How often each answer came, by its outputs as JSON.
        failures: What went wrong, one line for each request that was not answered with 200.
        connections: Connections opened.
        p50, p99, slowest: Milliseconds from sending a request to having its answer.
    """

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    connections: int = 0
    p50: float = 0.0
    p99: float = 0.0
    slowest: float = 0.0

    @property
    def sent(self) -> int:
        return self.answers.total() + len(self.failures)

    def fill(self, told: Mapping[str, Any]) -> None:
        """Take over what the load generator printed."""
        self.answers = Counter(told["answers"])
        self.failures, self.connections = told["failures"], told["connections"]
        self.p50, self.p99, self.slowest = told["p50"], told["p99"], told["slowest"]

    def __str__(self) -> str:
        times = f"p50 {self.p50:.1f} ms, p99 {self.p99:.1f} ms, slowest {self.slowest:.0f} ms"
        return f"{self.sent} requests over {self.connections} connections, {len(self.failures)} failed; {times}"


class Client:
    """A pod with Python, the example's client, and its held-out images."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    async def start(self, digits: Path, *, hosts: Mapping[str, str] | None = None) -> None:
        """Start it; returns when it runs.

        Args:
            digits: Folder of the digits example, trained.
            hosts: Addresses by host name, for there is no DNS here.
        """
        files = (digits / "classify.py", digits / "build" / "held-out.json")
        named = [f"--from-file={file}" for file in files]
        await self._namespace.kubectl("create", "configmap", _NAME, *named)
        await self._namespace.apply(_pod(hosts or {}))
        await self._namespace.kubectl("wait", "--for=condition=Ready", f"pod/{_NAME}", "--timeout=60s")

    async def classify(self, url: str) -> Answers:
        """The answers of the service at `url`."""
        script = _CLASSIFY.format(folder=_FILES, held_out=f"{_FILES}/held-out.json", url=url)
        return [(digit, probability) for digit, probability in json.loads(await self.python(script))]

    async def answers(self, url: str, *, model: str) -> bool:
        """Whether a service says, on a connection of its own, that its model is ready."""
        look = f"import urllib.request as u; u.urlopen({f'{url}/v2/models/{model}/ready'!r}, timeout=5).read()"
        try:
            await self.python(look)
        except CommandError:
            return False
        return True

    async def python(self, script: str) -> str:
        """Run a script in the pod; returns what it printed."""
        return await self._namespace.kubectl("exec", _NAME, "--", "python", "-c", script)

    @asynccontextmanager
    async def load(self, url: str, image: Sequence[Sequence[int]], *, model: str) -> AsyncIterator[Load]:
        """Keep a service under constant load while the block runs; it begins when answers come."""
        kubectl = (await require("kubectl"))["kubectl"]
        plane = self._namespace.node.plane
        where = (f"--kubeconfig={plane.kubeconfig}", f"--namespace={self._namespace.name}")
        script = inspect.getsource(load_script)
        arguments = (f"{url}/v2/models/{model}/infer", json.dumps({"inputs": [tensor(image)]}), str(RATE))
        process = await asyncio.create_subprocess_exec(
            kubectl, *where, "exec", "--stdin", _NAME, "--", "python", "-c", script, *arguments, stdin=PIPE, stdout=PIPE
        )
        result = Load()
        try:
            assert process.stdout is not None
            async with asyncio.timeout(30):
                assert await process.stdout.readline() == b"running\n"
            yield result
            assert process.stdin is not None
            process.stdin.close()
            async with asyncio.timeout(30):
                said, _ = await process.communicate()
            result.fill(json.loads(said))
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def classify_here(url: str, digits: Path) -> Answers:
    """The answers of a service that this machine reaches at `url`, asked in the same way as by a pod."""
    script = _CLASSIFY.format(folder=str(digits), held_out=str(digits / "build" / "held-out.json"), url=url)
    said = await run([sys.executable, "-c", script])
    return [(digit, probability) for digit, probability in json.loads(said)]


def tensor(image: Sequence[Sequence[int]]) -> dict[str, Any]:
    """An image as the protocol's input tensor: a batch of one."""
    pixels = [pixel for row in image for pixel in row]
    return {"name": "image", "datatype": "FP32", "shape": [1, 8, 8], "data": pixels}


def _pod(hosts: Mapping[str, str]) -> Manifest:
    container = {
        "name": "client",
        "image": str(RUNTIME),
        "imagePullPolicy": "Never",
        "command": ["sleep", "infinity"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "volumeMounts": [{"name": "files", "mountPath": _FILES}],
    }
    spec = {
        "containers": [container],
        "volumes": [{"name": "files", "configMap": {"name": _NAME}}],
        "hostAliases": [{"ip": address, "hostnames": [host]} for host, address in hosts.items()],
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 0,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": _NAME}, "spec": spec}
