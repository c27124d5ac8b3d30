"""Plays the deployment controller, the scheduler and the kubelets of a cluster in memory."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from openclaw_operator import names
from openclaw_operator.cluster.memory import MemoryCluster
from openclaw_operator.names import Manifest, Ref

PERIOD = 0.5  # virtual seconds between two steps

Ailment = Callable[[Manifest], Manifest | None]
"""From a pod's manifest: the status with which it never becomes ready, or None where it does."""


class Kubelet:
    """Turns Deployments into pods, one rolling step after the other; a pod is ready one step after it began."""

    def __init__(self, cluster: MemoryCluster, ailment: Ailment) -> None:
        self._cluster = cluster
        self._ailment = ailment
        self._numbers = itertools.count(1)
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Acts whenever something changes, until cancelled."""
        end = self._cluster.subscribe(lambda *_: self._news.set())
        try:
            while True:
                self._news.clear()
                await self._step()
                await asyncio.sleep(PERIOD)
                await self._news.wait()
        finally:
            end()

    async def _step(self) -> None:
        for pod in self._cluster.all(names.POD.name):
            if pod["metadata"].get("deletionTimestamp"):
                await self._cluster.delete(pod, grace=False)
            elif "status" not in pod:
                status = self._ailment(pod) or _running(pod)
                self._cluster.write_status(names.ref(pod), status)
        for deployment in self._cluster.all(names.DEPLOYMENT.name):
            await self._roll(deployment)

    async def _roll(self, deployment: Manifest) -> None:
        wanted = deployment["spec"]["replicas"]
        template = names.digest(deployment["spec"]["template"])
        pods = [pod for pod in self._cluster.all(names.POD.name) if _is_of(pod, deployment)]
        new = [pod for pod in pods if pod["metadata"]["annotations"]["template"] == template]
        old = [pod for pod in pods if pod not in new]
        spare = sum(map(_is_ready, pods)) - wanted
        surplus = [
            *(pod for pod in old if not _is_ready(pod)),
            *[pod for pod in old if _is_ready(pod)][: max(spare, 0)],
        ]
        for pod in [*surplus, *new[wanted:]]:
            await self._cluster.delete(pod, grace=False)
        if len(new) < wanted and len(pods) - len(surplus) <= wanted:
            await self._cluster.apply(self._pod(deployment, template), manager="kube-controller-manager")
        self._report(deployment, template)

    def _pod(self, deployment: Manifest, template: str) -> Manifest:
        metadata = deployment["metadata"]
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"], "uid": metadata["uid"]}
        return {
            "apiVersion": "v1",
            "kind": names.POD.name,
            "metadata": {
                "name": f"{metadata['name']}-{next(self._numbers)}",
                "namespace": metadata["namespace"],
                "labels": deployment["spec"]["template"]["metadata"]["labels"],
                "annotations": {"template": template},
                "ownerReferences": [{**owner, "controller": True}],
            },
            "spec": deployment["spec"]["template"]["spec"],
        }

    def _report(self, deployment: Manifest, template: str) -> None:
        reference = names.ref(deployment)
        live = self._cluster.get(reference)
        if live is None:
            return
        pods = [pod for pod in self._cluster.all(names.POD.name) if _is_of(pod, live)]
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(pods),
            "updatedReplicas": sum(pod["metadata"]["annotations"]["template"] == template for pod in pods),
            "readyReplicas": sum(map(_is_ready, pods)),
        }
        self._cluster.write_status(reference, status)


def _is_of(pod: Manifest, deployment: Manifest) -> bool:
    owners: list[dict[str, Any]] = pod["metadata"].get("ownerReferences") or []
    return any(owner["uid"] == deployment["metadata"]["uid"] for owner in owners)


def _is_ready(pod: Manifest) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _running(pod: Manifest) -> Manifest:
    number = int(pod["metadata"]["name"].rpartition("-")[2])
    ip = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return {"conditions": [{"type": "Ready", "status": "True"}], "podIP": ip}


def healthy(_: Manifest) -> Manifest | None:
    """Every pod becomes ready."""
    return None


def image_of(pod: Manifest) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def unpullable(pod: Manifest) -> Manifest | None:
    """Pods whose image is called broken cannot pull it."""
    if "broken" not in image_of(pod):
        return None
    waiting = {"reason": "ErrImagePull", "message": "manifest unknown"}
    container = {"name": names.CONTAINER, "image": image_of(pod), "restartCount": 0, "state": {"waiting": waiting}}
    return {"conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [container]}


def deployment_ref(name: str = "digits") -> Ref:
    return Ref(names.DEPLOYMENT.name, "vision", names.slot_name(name, "a"))
