"""What the init step of a pod found out about its model, from where the kubelet leaves its last words."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from openclaw_operator import names
from openclaw_operator.api.v1alpha1 import Optimization
from openclaw_operator.names import Manifest

MOST = 16
"""Entries in a status: more kinds of nodes than that tell nobody anything."""

Entry = dict[str, Any]


def optimizations(pods: Iterable[Manifest]) -> list[Entry]:
    """What came of the step in these pods, an entry for all to which the same happened on nodes of the same kind."""
    told: Counter[Optimization] = Counter()
    cached: Counter[Optimization] = Counter()
    for pod in pods:
        if found := _told(pod):
            outcome, was_cached = found
            told[outcome] += 1
            cached[outcome] += was_cached
    ordered = sorted(told, key=lambda each: (each.node_type, each.outcome, each.reason))[:MOST]
    counted = [each.model_copy(update={"pods": told[each], "cached": cached[each]}) for each in ordered]
    return [each.model_dump(by_alias=True, exclude_none=True) for each in counted]


def is_optimizing(pod: Manifest) -> bool:
    """Whether the step of a pod is not through: it works, or waits for another one's result."""
    step = _step(pod)
    return step is not None and "terminated" not in (step.get("state") or {})


def sentence(entry: Mapping[str, Any]) -> str:
    """An entry of the status for people."""
    return f"{entry['nodeType']}: {entry['reason']}"


def _step(pod: Manifest) -> Mapping[str, Any] | None:
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or []
    return next((each for each in statuses if each["name"] == names.OPTIMIZE), None)


def _told(pod: Manifest) -> tuple[Optimization, bool] | None:
    """What the step said, and whether it found the result of another one. Any image may run: it may be anything."""
    ended = ((_step(pod) or {}).get("state") or {}).get("terminated") or {}
    if ended.get("exitCode") != 0:
        return None
    try:
        document = json.loads(ended.get("message") or "")["optimization"]
        was_cached = document.pop("cached", False) is True
        return Optimization.model_validate(document), was_cached
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, ValidationError):
        return None
