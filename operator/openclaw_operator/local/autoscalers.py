"""Carries HorizontalPodAutoscalers out: measures pods, and scales what the load asks for."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from openclaw_operator import names
from openclaw_operator.cluster.memory import MemoryCluster
from openclaw_operator.local import rollout
from openclaw_operator.local.autoscale import INTERVAL_SECONDS, History, Sample, Verdict, evaluate, requests_of
from openclaw_operator.names import Manifest, Ref

log = logging.getLogger(__name__)

MANAGER = "horizontal-pod-autoscaler"
Usage = Callable[[str], tuple[float, int] | None]


class Autoscalers:
    """Every HorizontalPodAutoscaler of a cluster."""

    def __init__(self, cluster: MemoryCluster, *, usage: Usage, interval: float = INTERVAL_SECONDS) -> None:
        """
        Args:
            cluster: Where autoscalers, Deployments and pods are.
            usage: CPU seconds used so far, and bytes of memory in use, of the pod with a UID.
            interval: Seconds between two evaluations.
        """
        self._cluster = cluster
        self._usage = usage
        self._interval = interval
        self._history: dict[str, History] = {}
        self._measured: dict[str, tuple[float, float]] = {}

    async def run(self) -> None:
        """Evaluates for ever."""
        while True:
            await asyncio.sleep(self._interval)
            await self.evaluate()

    async def evaluate(self) -> None:
        """Evaluates each autoscaler once."""
        now = asyncio.get_running_loop().time()
        uids = [pod["metadata"]["uid"] for pod in self._cluster.all(names.POD.name)]
        used = await asyncio.to_thread(lambda: {uid: self._usage(uid) for uid in uids})
        usage = self._rates(used, now=now)
        live = set()
        for autoscaler in self._cluster.all(names.AUTOSCALER.name):
            live.add(autoscaler["metadata"]["uid"])
            self._scale(autoscaler, usage, now=now)
        self._history = {uid: history for uid, history in self._history.items() if uid in live}

    def _scale(self, autoscaler: Manifest, usage: Mapping[str, dict[str, float]], *, now: float) -> None:
        uid = autoscaler["metadata"]["uid"]
        target = Ref(
            names.DEPLOYMENT.name,
            autoscaler["metadata"]["namespace"],
            autoscaler["spec"]["scaleTargetRef"]["name"],
        )
        deployment = self._cluster.get(target)
        if deployment is None:
            return
        pods = [each for each in self._cluster.all(names.POD.name) if _belongs(each, deployment)]
        samples = [_sample(each, usage) for each in pods if not each["metadata"].get("deletionTimestamp")]
        replicas = int(deployment["spec"]["replicas"])
        verdict = evaluate(autoscaler, samples, self._history.get(uid, History()), replicas=replicas, now=now)
        self._history[uid] = verdict.history
        if verdict.replicas != replicas:
            used = ", ".join(f"{resource} {percent} %" for resource, percent in verdict.utilization.items())
            log.info("%s is scaled from %d to %d replicas: %s", target.name, replicas, verdict.replicas, used)
            self._cluster.scale(target, verdict.replicas, manager=MANAGER)
        self._cluster.write_status(names.ref(autoscaler), _status(verdict, replicas))

    def _rates(self, used: Mapping[str, tuple[float, int] | None], *, now: float) -> dict[str, dict[str, float]]:
        """Cores and bytes in use by pod. CPU needs two measurements; the first one says nothing."""
        result: dict[str, dict[str, float]] = {}
        measured: dict[str, tuple[float, float]] = {}
        for uid, usage in used.items():
            if usage is None:
                continue
            seconds, memory = usage
            measured[uid] = (now, seconds)
            result[uid] = {"memory": float(memory)}
            before = self._measured.get(uid)
            # Fewer seconds than before: the container was restarted in between.
            if before and now > before[0] and seconds >= before[1]:
                result[uid]["cpu"] = (seconds - before[1]) / (now - before[0])
        self._measured = measured
        return result


def _belongs(pod: Manifest, deployment: Manifest) -> bool:
    uid = deployment["metadata"]["uid"]
    return any(owner["uid"] == uid for owner in pod["metadata"].get("ownerReferences") or ())


def _sample(pod: Manifest, usage: Mapping[str, dict[str, float]]) -> Sample:
    """What a pod uses as a share of what it requests; resources without a request have none."""
    requests = requests_of(pod, names.CONTAINER)
    used = usage.get(pod["metadata"]["uid"], {})
    shares = {resource: used[resource] / requests[resource] for resource in used if requests.get(resource)}
    return Sample(ready=rollout.is_ready(pod), usage=shares)


def _status(verdict: Verdict, replicas: int) -> Manifest:
    metrics = [
        {
            "type": "ContainerResource",
            "containerResource": {
                "name": resource,
                "container": names.CONTAINER,
                "current": {"averageUtilization": percent},
            },
        }
        for resource, percent in verdict.utilization.items()
        if percent is not None
    ]
    return {"currentReplicas": replicas, "desiredReplicas": verdict.replicas, "currentMetrics": metrics}
