"""A real operator process against a real API server, with the rights that the chart gives it."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from testcluster import ControlPlane
from testcluster.audit import Request
from testcluster.ports import free_ports
from testcluster.process import run
from testcluster.toolchain import require
from testcluster.waiting import until

from openclaw_operator.decide import PROGRESS_HOLD
from support.markdown import REPOSITORY

RELEASE = "openclaw"
_RECONCILES = "openclaw_operator_reconciles_total"


class Operator:
    """An operator as a process, that can be killed and started again."""

    def __init__(self, plane: ControlPlane, *, namespace: str, cluster_wide: bool = False, **settings: str) -> None:
        """
        Args:
            plane: The cluster it works on.
            namespace: Namespace of its service account and of its Lease, and, but for `cluster_wide`, all it watches.
            cluster_wide: Whether it watches every namespace.
            settings: Settings of its own, by their names in `Config`.
        """
        self.plane = plane
        self.namespace = namespace
        self.cluster_wide = cluster_wide
        self.user = f"system:serviceaccount:{namespace}:{RELEASE}"
        health, metrics = free_ports(2)
        self.ports = {"health": health, "metrics": metrics}
        self.settings = {
            "health_port": str(health),
            "metrics_port": str(metrics),
            "lease_name": RELEASE,
            "lease_namespace": namespace,
            "lease_seconds": "3",
            "watch_namespaces": "" if cluster_wide else namespace,
            "default_cpu": "10m",
            "default_memory": "16Mi",
            **settings,
        }
        self.log = plane.directory / f"operator-{namespace}.log"
        self.process: asyncio.subprocess.Process | None = None
        self._kubeconfig: Path | None = None

    async def start(self) -> None:
        """Starts it; the first time, gives its service account the chart's rights."""
        if self._kubeconfig is None:
            await self._grant_rights()
            self._kubeconfig = await self.plane.service_account_kubeconfig(self.namespace, RELEASE)
        environment = {
            **os.environ,
            "KUBECONFIG": str(self._kubeconfig),
            **{f"OPENCLAW_{name.upper()}": value for name, value in self.settings.items()},
        }
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "openclaw_operator", "run", env=environment, stdout=log, stderr=log
            )

    async def stop(self) -> int:
        """SIGTERM, as a kubelet would. Returns the exit status."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), 30)

    async def kill(self) -> None:
        """SIGKILL: nothing of what it was doing is finished."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def metrics(self) -> dict[str, float]:
        """Its samples, by name and labels."""
        text = await self._get("metrics", "/metrics")
        samples = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    async def leads(self) -> bool:
        try:
            return (await self.metrics()).get("openclaw_operator_leader") == 1.0
        except aiohttp.ClientError:
            return False

    async def until_quiet(self) -> None:
        """Waits until it leads and has not looked at any service for longer than it holds a status back."""
        last, since = -1.0, time.monotonic()

        async def quiet() -> bool:
            nonlocal last, since
            if not await self.leads():
                return False
            samples = await self.metrics()
            reconciles = sum(value for name, value in samples.items() if name.startswith(_RECONCILES))
            if reconciles != last:
                last, since = reconciles, time.monotonic()
            still = time.monotonic() - since > PROGRESS_HOLD + 0.5
            return still and reconciles > 0 and samples["openclaw_operator_queue_depth"] == 0

        await until(quiet, "the operator has nothing to do", timeout=60)

    def writes(self, *, since: int = 0) -> Counter[tuple[str, str]]:
        """What it wrote beside its Lease, by verb and resource."""
        return Counter((each.verb, each.resource) for each in self.requests(since=since) if each.is_write)

    def requests(self, *, since: int = 0) -> list[Request]:
        """What it asked the API server beside its Lease."""
        asked = self.plane.audit.requests(since=since, user=self.user)
        return [each for each in asked if each.resource != "leases"]

    async def rules(self) -> list[dict[str, Any]]:
        """The chart's rules for what it watches."""
        name = f"{RELEASE}"
        kind = "clusterrole" if self.cluster_wide else "role"
        said = await self.plane.kubectl("get", kind, name, "--namespace", self.namespace, "--output=json")
        rules: list[dict[str, Any]] = json.loads(said)["rules"]
        return rules

    async def _get(self, port: str, path: str) -> str:
        url = f"http://127.0.0.1:{self.ports[port]}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return await response.text()

    async def _grant_rights(self) -> None:
        watched = [] if self.cluster_wide else ["--set", f"watchNamespaces={{{self.namespace}}}"]
        rendered = await run(
            [
                (await require("helm"))["helm"],
                "template",
                RELEASE,
                REPOSITORY / "charts/openclaw",
                "--namespace",
                self.namespace,
                *watched,
            ]
        )
        wanted = {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
        rights = [each for each in yaml.safe_load_all(rendered) if each and each["kind"] in wanted]
        await self.plane.kubectl(
            "apply", "--namespace", self.namespace, "--filename=-", input=yaml.safe_dump_all(rights)
        )


@contextlib.asynccontextmanager
async def running(operator: Operator) -> AsyncIterator[Operator]:
    """The operator, started, and killed in the end whatever happened."""
    await operator.start()
    try:
        yield operator
    finally:
        await operator.kill()
