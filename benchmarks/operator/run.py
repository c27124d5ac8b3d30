"""Time to Ready of many InferenceServices at once, beside two floors: Deployments and Services without an operator.

The bare floor has the smallest pods that there are. The floor has the very Deployments and Services that the operator
writes, with their probes, volumes and security contexts: what a person who wants the same servers would create, and
what no operator can be faster than, since each of a pod's writes costs the control plane by the size of the pod.

Each measurement has a control plane of its own, one after the other, so that none inherits another's load. All are
created as people do it, by one `kubectl create` of one file, with kubectl's own limit of requests a second. Pods
become Ready on fake nodes: what is measured is the control plane, not kubelets and images.
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from kubernetes.aio import client
from kubernetes.aio import config as kubeconfig
from testcluster import ControlPlane
from testcluster.waiting import until

from openclaw_operator import names
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.cli import now
from openclaw_operator.cluster.kubernetes import KubernetesCluster
from openclaw_operator.config import Config
from openclaw_operator.decide import decide
from openclaw_operator.observe import Observed
from openclaw_operator.telemetry import Telemetry
from support.operator import Operator, running
from support.services import manifest

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "benchmarks" / "results"
NAMESPACE = "bench"
NODES = 10
_SUBJECTS = ("bare floor", "floor", "operator")
LIMIT = 600  # seconds that one measurement may take


@dataclass(frozen=True)
class Measurement:
    """Seconds from the first creation until a share of the services was Ready; what the operator spent on it."""

    subject: str
    services: int
    p50: float
    p99: float
    last: float
    requests: float = 0.0
    writes: float = 0.0
    cpu_seconds: float = 0.0
    rss_mib: float = 0.0
    restart_seconds: float = 0.0
    restart_writes: int = 0


@click.command()
@click.option("--services", "-n", multiple=True, type=int, default=(200, 500), show_default=True)
@click.option("--rounds", "-r", default=1, show_default=True, help="Times that each measurement is repeated.")
def main(services: tuple[int, ...], rounds: int) -> None:
    """Write the table and benchmarks/results/operator.json."""
    measurements: list[Measurement] = []
    for number in range(rounds):
        for count in services:
            for subject in _SUBJECTS:
                click.echo(f"round {number + 1} of {rounds}: {count} services, {subject} ...", err=True)
                measurements.append(asyncio.run(_measure(subject, count)))
    RESULTS.mkdir(parents=True, exist_ok=True)
    table = _table(measurements)
    (RESULTS / "operator.json").write_text(json.dumps([asdict(each) for each in measurements], indent=2) + "\n")
    (RESULTS / "operator.md").write_text(table)
    click.echo(table)


async def _measure(subject: str, count: int) -> Measurement:
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as directory:
        async with ControlPlane(Path(directory) / "plane") as plane:
            await plane.add_fake_nodes(NODES)
            await plane.kubectl("apply", "--server-side", "--filename", str(REPOSITORY / "crds"))
            await plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
            await plane.kubectl("create", "namespace", NAMESPACE)
            async with _client(plane) as api:
                if subject == "operator":
                    return await _operator(plane, api, count=count)
                return await _floor(plane, api, subject=subject, count=count)


async def _floor(plane: ControlPlane, api: client.ApiClient, *, subject: str, count: int) -> Measurement:
    children = _bare if subject == "bare floor" else _same
    manifests = [each for number in range(count) for each in children(f"s{number}")]
    times = await _time_to_ready(plane, api, manifests=manifests, kind=names.DEPLOYMENT, condition="Available")
    return _measurement(subject, times)


async def _operator(plane: ControlPlane, api: client.ApiClient, *, count: int) -> Measurement:
    await plane.kubectl("create", "namespace", "openclaw-system")
    operator = Operator(plane, namespace="openclaw-system", cluster_wide=True, lease_seconds="15")
    async with running(operator):
        await until(operator.leads, "the operator leads", timeout=30)
        manifests = [manifest(f"s{number}") for number in range(count)]
        times = await _time_to_ready(plane, api, manifests=manifests, kind=names.SERVICE_KIND, condition="Ready")
        await operator.until_quiet()
        asked = list(plane.audit.requests(user=operator.user))
        assert operator.process is not None
        cpu, rss = _spent(operator.process.pid)
        await operator.stop()
        mark, started = plane.audit.mark(), time.monotonic()
        await operator.start()
        await until(lambda: _observed(operator, count), "all services are observed again", timeout=120)
        restart = time.monotonic() - started
        await operator.until_quiet()
        return _measurement(
            "operator",
            times,
            requests=len(asked) / count,
            writes=sum(each.is_write for each in asked) / count,
            cpu_seconds=cpu,
            rss_mib=rss,
            restart_seconds=restart,
            restart_writes=operator.writes(since=mark).total(),
        )


async def _observed(operator: Operator, count: int) -> bool:
    """Whether every service was looked at since the start, and had nothing to be written."""
    if not await operator.leads():
        return False
    return (await operator.metrics()).get('openclaw_operator_reconciles_total{result="quiet"}', 0) >= count


async def _time_to_ready(
    plane: ControlPlane,
    api: client.ApiClient,
    *,
    manifests: list[dict[str, Any]],
    kind: names.Kind,
    condition: str,
) -> list[float]:
    """Creates everything; seconds from the beginning until each object of `kind` had `condition`."""
    cluster = KubernetesCluster(api, namespaces=(NAMESPACE,), telemetry=Telemetry())
    count = sum(each["kind"] == kind.name for each in manifests)
    file = "\n---\n".join(map(json.dumps, manifests))
    since = (await cluster.list(kind)).version
    started = time.monotonic()
    ready: dict[str, float] = {}

    async def watch() -> None:
        async for _, _, seen in cluster.watch(kind, NAMESPACE, since=since):
            if seen is not None and _holds(seen, condition):
                ready.setdefault(seen["metadata"]["name"], time.monotonic() - started)
                if len(ready) == count:
                    return

    create = plane.kubectl("create", "--namespace", NAMESPACE, "--filename=-", input=file, timeout=LIMIT)
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        group.create_task(watch())
        group.create_task(create)
    return sorted(ready.values())


def _holds(seen: dict[str, Any], condition: str) -> bool:
    conditions = (seen.get("status") or {}).get("conditions") or []
    return any(each["type"] == condition and each["status"] == "True" for each in conditions)


def _same(name: str) -> list[dict[str, Any]]:
    """The Deployment and the Service that the operator would write, and nothing else of it."""
    service = manifest(name)
    service["metadata"] |= {"namespace": NAMESPACE, "uid": "", "generation": 1}
    waves = decide(InferenceService.parse(service), Observed(), Config(), now=now()).apply
    plain = [child for wave in waves for child in wave if child["kind"] in {"Deployment", "Service"}]
    for child in plain:
        del child["metadata"]["ownerReferences"]
        if child["kind"] == "Deployment":
            # Without the operator nobody makes an account for it.
            del child["spec"]["template"]["spec"]["serviceAccountName"]
    return plain


def _bare(name: str) -> list[dict[str, Any]]:
    labels = {names.SERVICE_LABEL: name}
    metadata = {"name": name, "labels": labels}
    container = {"name": "server", "image": "none", "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"port": 80}]},
        },
    ]


@asynccontextmanager
async def _client(plane: ControlPlane) -> AsyncIterator[client.ApiClient]:
    configuration = client.Configuration()
    await kubeconfig.load_kube_config(  # type: ignore[no-untyped-call]
        config_file=str(plane.kubeconfig), client_configuration=configuration
    )
    async with client.ApiClient(configuration) as api:
        yield api


def _spent(pid: int) -> tuple[float, float]:
    """CPU seconds and resident MiB of a process, from procfs (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), resident / 2**20


def _measurement(subject: str, times: list[float], **spent: Any) -> Measurement:
    def share(part: float) -> float:
        return round(times[min(len(times) - 1, int(len(times) * part))], 2)

    rounded = {name: round(value, 2) for name, value in spent.items()}
    return Measurement(subject, len(times), p50=share(0.5), p99=share(0.99), last=share(1.0), **rounded)


def _table(measurements: list[Measurement]) -> str:
    lines = [
        "| services | subject | p50 s | p99 s | last s | last / floor | last / bare floor | p50 / last | requests "
        "| writes | CPU s | RSS MiB | restart s | writes at restart |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for count in sorted({each.services for each in measurements}):
        bare, floor, ours = (
            _median([each for each in measurements if (each.subject, each.services) == (subject, count)])
            for subject in _SUBJECTS
        )
        for each in (bare, floor, ours):
            times = f"| {count} | {each.subject} | {each.p50} | {each.p99} | {each.last} "
            ratios = f"| {each.last / floor.last:.2f} | {each.last / bare.last:.2f} | {each.p50 / each.last:.2f} |"
            lines.append(times + ratios + (_spendings(each) if each is ours else " |" * 6))
    rounds = len(measurements) // max(1, len({(each.subject, each.services) for each in measurements}))
    lines.append(f"\nMedians of {rounds} rounds; every round is in operator.json. Requests and writes per service.\n")
    return "\n".join(lines)


def _spendings(ours: Measurement) -> str:
    spent = (ours.requests, ours.writes, ours.cpu_seconds, round(ours.rss_mib), ours.restart_seconds)
    return "".join(f" {each} |" for each in (*spent, ours.restart_writes))


def _median(rounds: list[Measurement]) -> Measurement:
    values = {
        name: round(statistics.median(getattr(each, name) for each in rounds), 2)
        for name in Measurement.__dataclass_fields__
        if name != "subject"
    }
    values["services"] = int(values["services"])
    return Measurement(rounds[0].subject, **values)


if __name__ == "__main__":
    main()
