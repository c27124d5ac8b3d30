"""InferenceServices on a real API server: create them, wait for them, look at what became of them."""

import json
from typing import Any

import yaml
from testcluster import ControlPlane
from testcluster.waiting import until

from openclaw_operator.names import OWNED_KINDS

LEAST: dict[str, Any] = {"model": {"uri": "s3://models/digits.onnx"}}
CHILDREN = (
    "deployments,services,serviceaccounts,configmaps,controllerrevisions,horizontalpodautoscalers,poddisruptionbudgets"
)


def manifest(name: str, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "openclaw.io/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": LEAST if spec is None else spec,
    }


async def apply(plane: ControlPlane, namespace: str, *manifests: dict[str, Any]) -> str:
    return await plane.kubectl(
        "apply", "--namespace", namespace, "--filename=-", input=yaml.safe_dump_all(manifests), timeout=180
    )


async def get(plane: ControlPlane, namespace: str, what: str, *names: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(
        await plane.kubectl("get", what, *names, "--namespace", namespace, "--output=json")
    )
    return said


async def children(plane: ControlPlane, namespace: str, service: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Everything that the service owns, pods aside, by kind and name."""
    said = await plane.kubectl(
        "get", CHILDREN, "--namespace", namespace, "--selector", f"openclaw.io/service={service}", "--output=json"
    )
    return {(each["kind"], each["metadata"]["name"]): each for each in json.loads(said)["items"]}


def condition(service: dict[str, Any], kind: str = "Ready") -> dict[str, Any]:
    conditions = service.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind), {})


def is_current(service: dict[str, Any]) -> bool:
    """Whether the status is about the newest generation."""
    return bool(service.get("status", {}).get("observedGeneration") == service["metadata"]["generation"])


async def until_ready(plane: ControlPlane, namespace: str, *, count: int = 1, timeout: float = 60) -> None:
    """Waits until all of `count` services are Ready for their newest generation."""

    async def ready() -> bool:
        items = (await get(plane, namespace, "inferenceservices"))["items"]
        return len(items) == count and all(
            is_current(each) and condition(each).get("status") == "True" for each in items
        )

    await until(ready, f"{count} services are Ready", timeout=timeout, interval=0.3)


async def until_complete(plane: ControlPlane, namespace: str, name: str) -> None:
    """Waits until a service with an autoscaler and a budget owns one child of every kind, and none besides."""

    async def complete() -> bool:
        kinds = sorted(kind for kind, _ in await children(plane, namespace, name))
        return kinds == sorted(kind.name for kind in OWNED_KINDS)

    await until(complete, f"{name} owns a child of every kind", timeout=30)


async def until_reason(plane: ControlPlane, namespace: str, name: str, *, reason: str, timeout: float = 60) -> str:
    """Waits until Ready has a reason for the newest generation; returns its message."""

    async def told() -> str:
        service = await get(plane, namespace, "inferenceservice", name)
        ready = condition(service)
        return str(ready["message"]) if is_current(service) and ready.get("reason") == reason else ""

    return await until(told, f"{name} tells {reason}", timeout=timeout)
