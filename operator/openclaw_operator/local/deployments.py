"""Carries Deployments out: creates and deletes their pods step by step, and reports their status."""

import logging
import secrets
from collections.abc import Callable
from datetime import datetime

from openclaw_operator import names
from openclaw_operator.cluster.memory import MemoryCluster
from openclaw_operator.cluster.queue import Queue
from openclaw_operator.local import rollout
from openclaw_operator.names import Manifest, Ref

log = logging.getLogger(__name__)

_WORKERS = 4


class Deployments:
    """Every Deployment of a cluster."""

    def __init__(
        self,
        cluster: MemoryCluster,
        *,
        now: Callable[[], datetime],
        new_suffix: Callable[[], str] = lambda: secrets.token_hex(3),
    ) -> None:
        """
        Args:
            cluster: Where Deployments and pods are.
            now: The time, with its zone.
            new_suffix: End of a pod's name, never given before.
        """
        self._cluster = cluster
        self._now = now
        self._new_suffix = new_suffix
        self.queue: Queue[Ref] = Queue(self.reconcile, workers=_WORKERS)

    def seen(self, event: str, manifest: Manifest) -> None:
        """Takes an event of the cluster."""
        if manifest["kind"] == names.DEPLOYMENT.name:
            self.queue.add(names.ref(manifest))
        elif manifest["kind"] == names.POD.name:
            for owner in manifest["metadata"].get("ownerReferences") or ():
                self.queue.add(Ref(owner["kind"], manifest["metadata"]["namespace"], owner["name"]))

    async def reconcile(self, reference: Ref) -> float | None:
        """One step for one Deployment. Returns the seconds after which its rollout counts as stalled."""
        deployment = self._cluster.get(reference)
        if deployment is None:
            return None
        pods = self._cluster.all(names.POD.name)
        replicas = rollout.replicas_of(deployment, pods)
        self._report(deployment, replicas)
        step = rollout.next_step(rollout.bounds(deployment), replicas)
        for _ in range(step.create):
            await self._cluster.apply(pod(deployment, suffix=self._new_suffix()), manager="deployments")
        doomed = set(step.delete)
        for each in pods:
            if each["metadata"]["name"] in doomed and each["metadata"]["namespace"] == reference.namespace:
                await self._cluster.delete(each)
        return rollout.deadline(self._cluster.get(reference) or deployment)

    def _report(self, deployment: Manifest, replicas: list[rollout.Replica]) -> None:
        written = rollout.status(deployment, replicas, now=self._now())
        if written != deployment.get("status"):
            self._cluster.write_status(names.ref(deployment), written)


def pod(deployment: Manifest, *, suffix: str) -> Manifest:
    """A pod of the Deployment's newest template."""
    template, digest = deployment["spec"]["template"], rollout.template_hash(deployment)
    metadata = deployment["metadata"]
    return {
        "apiVersion": names.POD.api_version,
        "kind": names.POD.name,
        "metadata": {
            "name": f"{metadata['name']}-{digest}-{suffix}",
            "namespace": metadata["namespace"],
            "labels": {**template["metadata"].get("labels", {}), rollout.TEMPLATE_LABEL: digest},
            "annotations": template["metadata"].get("annotations", {}),
            "ownerReferences": [
                {
                    "apiVersion": names.DEPLOYMENT.api_version,
                    "kind": names.DEPLOYMENT.name,
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": {**template["spec"], "nodeName": "localhost"},
    }
