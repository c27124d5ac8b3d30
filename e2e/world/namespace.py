"""Services in a namespace of their own: applied, read and waited for with kubectl."""

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from testcluster import CommandError
from testcluster.errors import DeadlineError
from testcluster.node import Node
from testcluster.waiting import until

Manifest = Mapping[str, Any]
T = TypeVar("T")

CHILDREN = (
    "deployments,replicasets,pods,services,endpointslices,configmaps,serviceaccounts,controllerrevisions,"
    "horizontalpodautoscalers,poddisruptionbudgets"
)
"""Every kind that a service may leave behind."""

POLL = 0.4  # seconds; each look is a kubectl


@dataclass(frozen=True)
class Condition:
    """A condition of a service."""

    status: str
    reason: str
    message: str
    generation: int


@dataclass(frozen=True)
class Service:
    """What the API server says of an InferenceService."""

    generation: int
    uid: str
    status: Manifest

    def condition(self, kind: str) -> Condition:
        """A condition of this generation; of unknown state if it was not written yet."""
        for each in self.status.get("conditions", ()):
            if each["type"] == kind and each["observedGeneration"] == self.generation:
                return Condition(each["status"], each["reason"], each["message"], each["observedGeneration"])
        return Condition("Unknown", "", "", 0)

    @property
    def is_ready(self) -> bool:
        return self.condition("Ready").status == "True"


@dataclass(frozen=True)
class Pod:
    """A pod of a service, its first container in particular."""

    name: str
    uid: str
    revision: str
    ready: bool
    leaving: bool
    restarts: int
    container: str
    started: datetime

    @property
    def restarts_that_backing_off_allows(self) -> int:
        """Restarts of a container that always fails at once: the pauses are 10 s, 20 s, 40 s and so on."""
        age = (datetime.now(UTC) - self.started).total_seconds()
        return 1 + math.ceil(math.log2(1 + age / 10))


class Namespace:
    """A namespace where only restricted pods are admitted."""

    def __init__(self, node: Node, name: str) -> None:
        self.node = node
        self.name = name

    async def create(self) -> None:
        """Make it."""
        await self.node.plane.kubectl("create", "namespace", self.name)
        await self.node.plane.kubectl("label", "namespace", self.name, "pod-security.kubernetes.io/enforce=restricted")

    async def delete(self) -> None:
        """Remove it with everything in it, without waiting for that."""
        await self.node.plane.kubectl("delete", "namespace", self.name, "--wait=false")

    async def kubectl(self, *arguments: str | Path, input: str | None = None, timeout: float = 90) -> str:
        """Run kubectl here."""
        return await self.node.plane.kubectl(f"--namespace={self.name}", *arguments, input=input, timeout=timeout)

    async def apply(self, *manifests: Manifest) -> None:
        """`kubectl apply` of all of them at once."""
        listed = {"apiVersion": "v1", "kind": "List", "items": manifests}
        await self.kubectl("apply", "--filename=-", input=json.dumps(listed))

    async def patch(self, name: str, spec: Manifest) -> None:
        """Merge `spec` into that of a service."""
        await self.kubectl("patch", "claw", name, "--type=merge", f"--patch={json.dumps({'spec': spec})}")

    async def service(self, name: str) -> Service:
        """A service as it is now."""
        found = json.loads(await self.kubectl("get", "claw", name, "--output=json"))
        return Service(found["metadata"]["generation"], found["metadata"]["uid"], found.get("status", {}))

    async def pods(self, service: str) -> list[Pod]:
        """The pods of a service, those on their way out too, oldest first."""
        listed = json.loads(
            await self.kubectl("get", "pods", f"--selector=openclaw.io/service={service}", "--output=json")
        )
        return sorted((_pod(each) for each in listed["items"]), key=lambda pod: pod.started)

    async def address(self, service: str) -> str:
        """Where the Service of a service answers, by its cluster address: there is no DNS here."""
        return "http://" + await self.kubectl("get", "service", service, "--output=jsonpath={.spec.clusterIP}")

    async def until_ready(self, *names: str, timeout: float = 60) -> None:
        """Wait until the present generation of each service is Ready."""
        for name in names:

            async def ready(name: str = name) -> Service | None:
                service = await self.service(name)
                return service if service.is_ready else None

            await self._until(ready, name, f"{name} is Ready", timeout=timeout)

    async def until_not_ready(self, name: str, reason: str, *, timeout: float = 60) -> Condition:
        """Wait until the present generation is not Ready for `reason`; returns the condition."""

        async def told() -> Condition | None:
            condition = (await self.service(name)).condition("Ready")
            return condition if (condition.status, condition.reason) == ("False", reason) else None

        return await self._until(told, name, f"{name} is not Ready, for {reason}", timeout=timeout)

    async def until_pods(
        self, name: str, holds: Callable[[list[Pod]], bool], *, what: str, timeout: float = 60
    ) -> list[Pod]:
        """Wait until `holds` is true of the list of pods of a service; returns them."""

        async def pods() -> list[Pod] | None:
            found = await self.pods(name)
            return found if holds(found) else None

        return await self._until(pods, name, what, timeout=timeout)

    async def until_event(self, name: str, reason: str, *, timeout: float = 60) -> list[str]:
        """Wait until an event tells `reason` of a service; returns the reasons told of it, in any order."""

        async def reasons() -> list[str] | None:
            told = json.loads(await self.kubectl("get", "events", "--output=json"))["items"]
            found = [each["reason"] for each in told if each["involvedObject"]["name"] == name]
            return found if reason in found else None

        return await self._until(reasons, name, f"an event tells {reason} of {name}", timeout=timeout)

    async def leftovers(self, name: str) -> list[str]:
        """Everything that bears the label of a service, as kind/name."""
        selector = f"--selector=openclaw.io/service={name}"
        return (await self.kubectl("get", CHILDREN, selector, "--output=name")).split()

    async def _until(self, condition: Callable[[], Awaitable[T | None]], name: str, what: str, *, timeout: float) -> T:
        try:
            found = await until(condition, what, timeout=timeout, interval=POLL)
        except DeadlineError as late:
            raise AssertionError(f"{late}\n{await self._story(name)}") from late
        assert found is not None
        return found

    async def _story(self, name: str) -> str:
        """What a person would look at who asks why a service is not as it should be."""
        selector = f"--selector=openclaw.io/service={name}"
        looks: list[tuple[str, ...]] = [
            ("get", "claw", name, "--output=jsonpath={.status}"),
            ("get", "pods", selector, "--output=wide"),
            ("logs", selector, "--tail=20", "--prefix"),
            ("get", "events", "--sort-by=.lastTimestamp"),
        ]
        told = []
        for look in looks:
            try:
                told.append(await self.kubectl(*look))
            except CommandError as refused:
                told.append(str(refused))
        return "\n".join(told)[-6000:]


def inference_service(name: str, uri: str, **spec: Any) -> dict[str, Any]:
    """A service of one small pod; `spec` adds to it or replaces what is here.

    Args:
        name: Name of the service.
        uri: Where its model is.
        spec: Groups of the spec. `model` is merged into the model that `uri` makes.
    """
    model = {"uri": uri, "credentials": {"secretName": "model-store"}, **spec.pop("model", {})}
    return {
        "apiVersion": "openclaw.io/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {
            "model": model,
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
            "scaling": {"minReplicas": 1, "maxReplicas": 1},
            **spec,
        },
    }


def _pod(manifest: Manifest) -> Pod:
    metadata, status = manifest["metadata"], manifest.get("status", {})
    containers = status.get("containerStatuses") or [{}]
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ()))
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        revision=metadata["labels"].get("openclaw.io/revision", ""),
        ready=ready,
        leaving="deletionTimestamp" in metadata,
        restarts=containers[0].get("restartCount", 0),
        container=containers[0].get("containerID", ""),
        started=datetime.fromisoformat(metadata["creationTimestamp"]),
    )
