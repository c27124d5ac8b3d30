"""Children as they live: what an API server adds to a manifest, and pods in every state."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from openclaw_operator import names
from openclaw_operator.decide import Decision
from openclaw_operator.names import Manifest, Ref

READY = {"type": "Ready", "status": "True"}
NOT_READY = {"type": "Ready", "status": "False", "reason": "ContainersNotReady"}


def stored(manifest: Manifest, *, version: int, before: Manifest | None = None) -> Manifest:
    """The manifest as an API server hands it out once it was applied over `before`."""
    live = deepcopy(manifest)
    earlier = (before or {}).get("metadata", {})
    live["metadata"] |= {
        "uid": earlier.get("uid", f"uid-of-{manifest['metadata']['name']}"),
        "resourceVersion": str(version),
        "generation": earlier.get("generation", 0) + 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    if live["kind"] == names.DEPLOYMENT.name:
        given = "replicas" in live["spec"]
        live["spec"].setdefault("replicas", (before or {"spec": {}})["spec"].get("replicas", 1))
        live["metadata"]["managedFields"] = owned_by(names.FIELD_MANAGER) if given else []
        live["status"] = (before or {}).get("status", {})
    return live


def owned_by(manager: str, *, subresource: str = "") -> list[Manifest]:
    """`managedFields` in which `manager` owns the number of replicas."""
    entry: Manifest = {"manager": manager, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    return [{**entry, "subresource": subresource} if subresource else entry]


def carried_out(decision: Decision, children: Iterable[Manifest], *, version: int = 1) -> list[Manifest]:
    """The children once everything of a decision was applied and deleted."""
    live: dict[Ref, Manifest] = {names.ref(child): child for child in children}
    for manifest in (each for wave in (*decision.apply, decision.later) for each in wave):
        reference = names.ref(manifest)
        live[reference] = stored(manifest, version=version, before=live.get(reference))
    for child in decision.delete:
        del live[names.ref(child)]
    return list(live.values())


def deployment_of(children: Iterable[Manifest]) -> Manifest:
    (found,) = [child for child in children if child["kind"] == names.DEPLOYMENT.name]
    return found


def rolled_out(deployment: Manifest, *, ready: int | None = None) -> list[Manifest]:
    """The Deployment as its controller leaves it, with its pods; `ready` of them are ready, all by default."""
    count = deployment["spec"]["replicas"]
    live = deepcopy(deployment)
    live["status"] = {
        "observedGeneration": live["metadata"]["generation"],
        "replicas": count,
        "updatedReplicas": count,
        "conditions": [],
    }
    able = count if ready is None else ready
    return [live, *(pod(deployment, number, ready=number < able) for number in range(count))]


def pod(deployment: Manifest, number: int, *, ready: bool = True, **status: Any) -> Manifest:
    """A pod of the Deployment's template."""
    metadata = deployment["metadata"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    return {
        "apiVersion": "v1",
        "kind": names.POD.name,
        "metadata": {
            "name": f"{metadata['name']}-{labels[names.REVISION_LABEL]}-{number}",
            "namespace": metadata["namespace"],
            "uid": f"uid-{labels[names.REVISION_LABEL]}-{number}",
            "resourceVersion": "1",
            "labels": labels,
        },
        "spec": {"containers": [{"name": names.CONTAINER}]},
        "status": {"conditions": [READY if ready else NOT_READY], **status},
    }
