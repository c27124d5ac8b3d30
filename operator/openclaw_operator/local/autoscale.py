"""HorizontalPodAutoscaler: how many replicas the load asks for. Pure.

    desired = ceil(replicas * usage / target), unchanged within a tolerance of 10 %

then the most cautious of the recommendations within the stabilization window, then the policies' limits on the rate
of change, then minReplicas and maxReplicas. Rules and defaults:
https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from openclaw_operator.api import quantity
from openclaw_operator.names import Manifest

TOLERANCE = 0.1
INTERVAL_SECONDS = 15.0

_POLICIES: dict[str, list[dict[str, Any]]] = {
    "scaleUp": [
        {"type": "Percent", "value": 100, "periodSeconds": 15},
        {"type": "Pods", "value": 4, "periodSeconds": 15},
    ],
    "scaleDown": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}
_WINDOW_SECONDS = {"scaleUp": 0, "scaleDown": 300}


@dataclass(frozen=True, slots=True)
class Sample:
    """What one pod uses, in the units of its requests: cores, bytes.

    Attributes:
        ready: Whether the pod is ready; one that is not counts as idle when replicas would be added.
        usage: By resource; empty where nothing was measured yet.
    """

    ready: bool
    usage: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class History:
    """What an autoscaler remembers: recommendations and changes as (seconds, number), oldest first."""

    recommended: tuple[tuple[float, int], ...] = ()
    changes: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The number of replicas to have now, and what to remember."""

    replicas: int
    history: History
    utilization: Mapping[str, int | None]


def evaluate(
    autoscaler: Manifest, samples: Sequence[Sample], history: History, *, replicas: int, now: float
) -> Verdict:
    """One evaluation of an autoscaler.

    Args:
        autoscaler: The HorizontalPodAutoscaler.
        samples: One for each pod that is not leaving; usage divided by the pod's request, so 1.0 is all of it.
        history: As returned by the evaluation before.
        replicas: What the target asks for now. 0 switches the autoscaler off.
        now: Seconds of a clock that only grows.
    """
    spec = autoscaler["spec"]
    low, high = int(spec.get("minReplicas", 1)), int(spec["maxReplicas"])
    targets = dict(_targets(spec))
    utilization = {resource: _utilization(samples, resource) for resource in targets}
    if replicas == 0:
        return Verdict(0, history, utilization)
    wanted = [
        proposed
        for resource, target in targets.items()
        if (proposed := _proposed(samples, resource, target=target, replicas=replicas)) is not None
    ]
    recommended = max(wanted, default=replicas)
    remembered = _remember(history, recommended, now=now)
    stable = _stabilized(spec, remembered, replicas=replicas, recommended=recommended, now=now)
    limited = _limited(spec, remembered, replicas=replicas, wanted=stable, now=now)
    result = min(max(limited, low), high)
    if result != replicas:
        remembered = replace(remembered, changes=(*remembered.changes, (now, result - replicas)))
    return Verdict(result, remembered, utilization)


def requests_of(pod: Manifest, container: str) -> dict[str, float]:
    """What a container requests, by resource: its requests, or its limits where it has none."""
    for each in pod["spec"]["containers"]:
        if each["name"] == container:
            resources = each.get("resources") or {}
            asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
            return {name: float(quantity.parse(value)) for name, value in asked.items()}
    return {}


def _targets(spec: Manifest) -> Iterable[tuple[str, float]]:
    """Target shares of the request by resource: 80 percent is 0.8."""
    for metric in spec.get("metrics") or []:
        source = metric.get("containerResource") or metric.get("resource")
        if source and source["target"].get("averageUtilization"):
            yield source["name"], source["target"]["averageUtilization"] / 100


def _utilization(samples: Sequence[Sample], resource: str) -> int | None:
    measured = [sample.usage[resource] for sample in samples if sample.ready and resource in sample.usage]
    return round(100 * sum(measured) / len(measured)) if measured else None


def _proposed(samples: Sequence[Sample], resource: str, *, target: float, replicas: int) -> int | None:
    """What one metric asks for; None where it says nothing.

    A pod that is not ready, or not measured, damps: it counts as idle when replicas would be added, and one that is
    not measured counts as on target when they would be removed.
    """
    measured = [sample.usage[resource] for sample in samples if sample.ready and resource in sample.usage]
    if not measured:
        return None
    if sum(measured) / len(measured) > target:
        damped = sum(measured) / len(samples) / target
        count = len(samples)
        grows = damped > 1 + TOLERANCE
        return max(math.ceil(count * damped - 1e-9), replicas) if grows else replicas
    missing = sum(sample.ready and resource not in sample.usage for sample in samples)
    count = len(measured) + missing
    damped = (sum(measured) + missing * target) / count / target
    return min(max(math.ceil(count * damped - 1e-9), 1), replicas) if damped < 1 - TOLERANCE else replicas


def _remember(history: History, recommended: int, *, now: float) -> History:
    """With the recommendation of now; without what no window can reach (an hour at most, by the schema)."""
    kept = tuple(each for each in history.recommended if each[0] > now - 3600)
    changes = tuple(each for each in history.changes if each[0] > now - 1800)
    return History((*kept, (now, recommended)), changes)


def _stabilized(spec: Manifest, history: History, *, replicas: int, recommended: int, now: float) -> int:
    """The most cautious recommendation of the window: the lowest to go up by, the highest to go down by."""
    direction = "scaleUp" if recommended > replicas else "scaleDown"
    rules = (spec.get("behavior") or {}).get(direction) or {}
    window = rules.get("stabilizationWindowSeconds", _WINDOW_SECONDS[direction])
    within = [number for moment, number in history.recommended if moment > now - window] or [recommended]
    if direction == "scaleUp":
        return max(min(within), replicas)
    return min(max(within), replicas)


def _limited(spec: Manifest, history: History, *, replicas: int, wanted: int, now: float) -> int:
    """`wanted`, as far as the policies let the number change within their periods."""
    if wanted == replicas:
        return wanted
    direction = "scaleUp" if wanted > replicas else "scaleDown"
    sign = 1 if wanted > replicas else -1
    rules = (spec.get("behavior") or {}).get(direction) or {}
    select = rules.get("selectPolicy", "Max")
    if select == "Disabled":
        return replicas
    bounds: list[int] = []
    for policy in rules.get("policies") or _POLICIES[direction]:
        period = [change for moment, change in history.changes if moment > now - policy["periodSeconds"]]
        start = replicas - sum(change for change in period if change * sign > 0)
        if policy["type"] == "Pods":
            bounds.append(start + sign * policy["value"])
        else:
            share = start * policy["value"] / 100
            bounds.append(start + math.ceil(share) if sign > 0 else math.floor(start - share))
    bound = max(bounds) if (select == "Max") == (sign > 0) else min(bounds)
    return min(wanted, max(bound, replicas)) if sign > 0 else max(wanted, min(bound, replicas))
