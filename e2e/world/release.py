"""The chart, installed with helm as a user does it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testcluster.audit import Request
from testcluster.node import Node
from testcluster.process import run

from world.images import OPERATOR, OPTIMIZER, RUNTIME
from world.store import BUCKET

NAME = "openclaw"
NAMESPACE = "openclaw-system"
USER = f"system:serviceaccount:{NAMESPACE}:{NAME}"

VALUES = {
    "image.repository": OPERATOR.repository,
    "image.tag": OPERATOR.tag,
    "image.pullPolicy": "Never",
    "resources.requests.cpu": "10m",
    "runtime.image.repository": RUNTIME.repository,
    "runtime.image.tag": RUNTIME.tag,
    "runtime.image.pullPolicy": "IfNotPresent",
    "optimizer.image.repository": OPTIMIZER.repository,
    "optimizer.image.tag": OPTIMIZER.tag,
    "optimizer.cacheUri": f"s3://{BUCKET}/optimized",
}
"""What this machine makes necessary: images that no registry has, and requests that many pods fit beside."""


class Release:
    """The operator in its namespace, where only restricted pods are admitted."""

    def __init__(self, node: Node, *, chart: Path, helm: Path) -> None:
        self._node = node
        self._chart = chart
        self._helm = helm
        self._values = dict(VALUES)
        self._installed = 0
        self._refused: list[Request] = []

    async def install(self) -> str:
        """`helm install`; returns what it printed, when the operator is ready."""
        self._installed = self._node.plane.audit.mark()
        return await self._apply("install", "--create-namespace")

    async def upgrade(self, values: Mapping[str, str]) -> str:
        """`helm upgrade` with `values` beside those of before; returns when the new operator is ready."""
        self._values |= values
        return await self._apply("upgrade")

    async def uninstall(self) -> str:
        """`helm uninstall`; returns what it printed, when the operator has ended."""
        self._refused = self.refused()
        said = await self._run("uninstall", NAME, f"--namespace={NAMESPACE}", "--wait", "--timeout=60s")
        await self._until_no_pod()
        return said

    def refused(self) -> list[Request]:
        """What the operator asked the API server for, without having the right to.

        While the release is removed its rights go first: what is refused then does not count.
        """
        asked = self._node.plane.audit.requests(since=self._installed, user=USER)
        return self._refused + [each for each in asked if not each.authorized]

    async def scale(self, replicas: int) -> None:
        """Have so many operators; returns when they are there, or gone."""
        await self.kubectl("scale", f"deployment/{NAME}", f"--replicas={replicas}")
        if replicas:
            await self.kubectl("rollout", "status", f"deployment/{NAME}", "--timeout=60s")
        else:
            await self._until_no_pod()

    async def pods(self) -> list[dict[str, Any]]:
        """The operator's pods that are not on their way out."""
        listed = json.loads(await self.kubectl("get", "pods", f"--selector={_SELECTOR}", "--output=json"))
        return [pod for pod in listed["items"] if "deletionTimestamp" not in pod["metadata"]]

    async def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the operator's namespace."""
        return await self._node.plane.kubectl(f"--namespace={NAMESPACE}", *arguments, timeout=90)

    async def _until_no_pod(self) -> None:
        await self.kubectl("wait", "--for=delete", "pod", f"--selector={_SELECTOR}", "--timeout=60s")

    async def _apply(self, verb: str, *flags: str) -> str:
        values = [f"--set-string={name}={value}" for name, value in self._values.items()]
        wait = ("--wait", "--timeout=120s")
        return await self._run(verb, NAME, self._chart, f"--namespace={NAMESPACE}", *flags, *values, *wait)

    async def _run(self, *arguments: str | Path) -> str:
        # Helm would keep its own files in the user's home.
        home = self._node.directory / "helm"
        env = {f"HELM_{kind}_HOME": str(home / kind) for kind in ("CACHE", "CONFIG", "DATA")}
        return await run([self._helm, f"--kubeconfig={self._node.plane.kubeconfig}", *arguments], env=env, timeout=180)


_SELECTOR = f"app.kubernetes.io/instance={NAME},app.kubernetes.io/component=operator"
