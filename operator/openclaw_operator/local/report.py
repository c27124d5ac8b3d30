"""What `openclaw local` prints about services. Pure."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from openclaw_operator.local.documents import DEFAULT_NAMESPACE
from openclaw_operator.local.moments import age
from openclaw_operator.names import Key, Manifest
from openclaw_operator.status import PROGRESS_REASONS, condition

PENDING = "Pending"
_COLUMNS = ("NAME", "READY", "REASON", "URL", "REPLICAS", "AGE")
_MOST_VALUES = 256  # a longer command is none to paste
_ZERO: dict[str, Any] = {"BOOL": False, "FP16": 0.0, "FP32": 0.0, "FP64": 0.0}


@dataclass(frozen=True, slots=True)
class Standing:
    """How a service stands.

    Attributes:
        ready: Whether it is Ready in its present generation.
        failed: Whether it is not, and will not be without somebody's doing.
        reason: The reason for programs.
        message: The sentence for people.
    """

    ready: bool
    failed: bool
    reason: str
    message: str


def standing(service: Manifest) -> Standing:
    """How a service stands, by its condition Ready."""
    status = service.get("status") or {}
    known = condition(status, "Ready")
    current = status.get("observedGeneration") == service["metadata"]["generation"]
    if not known or not current:
        return Standing(False, False, PENDING, "the change has not been looked at yet")
    ready = known["status"] == "True"
    failed = not ready and known["reason"] not in PROGRESS_REASONS
    return Standing(ready, failed, known["reason"], known["message"])


def shown(key: Key) -> str:
    """The service's name, with its namespace where that is not the default one."""
    return key.name if key.namespace == DEFAULT_NAMESPACE else str(key)


def key_of(service: Manifest) -> Key:
    return Key(service["metadata"]["namespace"], service["metadata"]["name"])


def table(services: Iterable[Manifest], *, now: datetime) -> str:
    """Services as columns, and below them what is wrong with those that are not ready."""
    rows, remarks = [_COLUMNS], []
    for service in services:
        status = service.get("status") or {}
        stands = standing(service)
        name = shown(key_of(service))
        count = f"{status.get('readyReplicas', 0)}/{status.get('replicas', 0)}"
        since = age(service["metadata"]["creationTimestamp"], now)
        rows.append((name, str(stands.ready), stands.reason, status.get("url", ""), count, since))
        if not stands.ready:
            remarks.append(f"{name}: {stands.message}")
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *([""] if remarks else []), *remarks])


def curl(service: Manifest, metadata: Mapping[str, Any] | None) -> str:
    """A command to try the service with: zeros for its inputs, or its metadata where that would be too long.

    Args:
        service: The service.
        metadata: The model's metadata as the server tells it, if it was asked.
    """
    model = f"{service['status']['url']}/v2/models/{model_name(service)}"
    inputs = (metadata or {}).get("inputs") or []
    shapes = {each["name"]: [max(size, 1) for size in each["shape"]] for each in inputs}
    plain = all(each["datatype"] in _ZERO or "INT" in each["datatype"] for each in inputs)
    if not inputs or not plain or sum(map(math.prod, shapes.values())) > _MOST_VALUES:
        return f"curl {model}"
    tensors = [
        {
            "name": each["name"],
            "shape": shapes[each["name"]],
            "datatype": each["datatype"],
            "data": [_ZERO.get(each["datatype"], 0)] * math.prod(shapes[each["name"]]),
        }
        for each in inputs
    ]
    body = json.dumps({"inputs": tensors}, separators=(",", ":")).replace("0.0", "0").replace("'", "'\\''")
    return f"curl {model}/infer -d '{body}'"


def model_name(service: Manifest) -> str:
    """The model's name in the request's path."""
    return str(service["spec"]["model"].get("name") or service["metadata"]["name"])
