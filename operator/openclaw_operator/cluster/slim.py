"""What of an object is worth remembering. The rest would only cost memory, and wake reconciles for nothing."""

from collections.abc import Callable, Mapping
from typing import Any

from openclaw_operator import names
from openclaw_operator.names import Manifest

_POD_CONDITIONS = {"Ready", "PodScheduled"}
_CONDITION = ("type", "status", "reason", "message")
_CONTAINER_STATUS = ("name", "image", "state", "lastState", "restartCount")


def slim(manifest: Mapping[str, Any]) -> Manifest:
    """A copy with the parts that decisions are made from; of objects that are only written, everything but status."""
    kept = {field: value for field, value in manifest.items() if field != "status"}
    metadata = dict(kept["metadata"])
    fields = metadata.pop("managedFields", None)
    kept["metadata"] = metadata
    if manifest["kind"] == names.DEPLOYMENT.name and fields:
        metadata["managedFields"] = [
            entry for entry in fields if "f:replicas" in (entry.get("fieldsV1") or {}).get("f:spec", {})
        ]
    keep = _STATUS.get(manifest["kind"])
    if keep and manifest.get("status"):
        kept["status"] = keep(manifest["status"])
    if manifest["kind"] == names.POD.name:
        kept["spec"] = {
            "containers": [_only(("name", "resources"), each) for each in manifest["spec"].get("containers") or []]
        }
    return kept


def _pod_status(status: Mapping[str, Any]) -> Manifest:
    kept = _only(("phase", "reason", "message", "podIP", "local"), status)
    kept["conditions"] = [
        _only(_CONDITION, each) for each in status.get("conditions") or [] if each["type"] in _POD_CONDITIONS
    ]
    for group in ("initContainerStatuses", "containerStatuses"):
        if status.get(group):
            kept[group] = [_only(_CONTAINER_STATUS, each) for each in status[group]]
    return kept


def _deployment_status(status: Mapping[str, Any]) -> Manifest:
    kept = _only(("observedGeneration",), status)
    kept["conditions"] = [_only(_CONDITION, each) for each in status.get("conditions") or [] if _is_failure(each)]
    return kept


def _is_failure(condition: Mapping[str, Any]) -> bool:
    """A healthy Progressing condition changes with every pod and says nothing that the counts do not."""
    return condition["type"] == "ReplicaFailure" or condition.get("reason") == "ProgressDeadlineExceeded"


def _only(fields: tuple[str, ...], value: Mapping[str, Any]) -> Manifest:
    return {field: value[field] for field in fields if field in value}


_STATUS: dict[str, Callable[[Mapping[str, Any]], Manifest]] = {
    names.SERVICE_KIND.name: dict,
    names.POD.name: _pod_status,
    names.DEPLOYMENT.name: _deployment_status,
}
