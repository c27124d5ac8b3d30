"""Rolling updates: which pods a Deployment creates and deletes next, and its status. Pure.

The rules are the Deployment controller's (https://kubernetes.io/docs/concepts/workloads/controllers/deployment/):
at most `replicas + maxSurge` pods, and never fewer than `replicas - maxUnavailable` of them available through a
deletion of ours.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from openclaw_operator import names
from openclaw_operator.local.moments import parsed, rfc3339
from openclaw_operator.names import Manifest

TEMPLATE_LABEL = "pod-template-hash"

_UNFINISHED = "ReplicaSetUpdated"
_STALLED = "ProgressDeadlineExceeded"


@dataclass(frozen=True, slots=True)
class Replica:
    """A pod of a Deployment that is not leaving.

    Attributes:
        current: Whether it is of the newest template.
        available: Whether it is ready.
        created: When, RFC 3339.
    """

    name: str
    current: bool
    available: bool
    created: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next: how many pods of the newest template to create, and which pods to delete."""

    create: int = 0
    delete: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many pods may exist, and how many must be available."""

    replicas: int
    most: int
    least: int


def bounds(deployment: Manifest) -> Bounds:
    spec = deployment["spec"]
    replicas = int(spec.get("replicas", 1))
    rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
    surge = math.ceil(_share(rolling.get("maxSurge", "25%"), replicas))
    unavailable = math.floor(_share(rolling.get("maxUnavailable", "25%"), replicas))
    if surge == 0 and unavailable == 0:
        unavailable = 1  # otherwise nothing could ever move
    return Bounds(replicas, replicas + surge if replicas else 0, max(replicas - unavailable, 0))


def template_hash(deployment: Manifest) -> str:
    return names.digest(deployment["spec"]["template"])


def replicas_of(deployment: Manifest, pods: Iterable[Manifest]) -> list[Replica]:
    """The pods that the Deployment owns and that are not leaving."""
    uid, newest = deployment["metadata"]["uid"], template_hash(deployment)
    return [
        Replica(
            name=pod["metadata"]["name"],
            current=pod["metadata"]["labels"].get(TEMPLATE_LABEL) == newest,
            available=is_ready(pod),
            created=pod["metadata"].get("creationTimestamp", ""),
        )
        for pod in pods
        if any(owner["uid"] == uid for owner in pod["metadata"].get("ownerReferences") or ())
        and not pod["metadata"].get("deletionTimestamp")
    ]


def is_ready(pod: Manifest) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def next_step(limits: Bounds, replicas: Iterable[Replica]) -> Step:
    """The next step of a rollout, or of a change in the number of replicas."""
    pods = list(replicas)
    current = [pod for pod in pods if pod.current]
    outdated = [pod for pod in pods if not pod.current]
    create = max(min(limits.replicas - len(current), limits.most - len(pods)), 0)
    surplus = sorted(current, key=_dispensable)[: max(len(current) - limits.replicas, 0)]
    return Step(create, tuple(pod.name for pod in (*surplus, *_retired(limits, current, outdated))))


def _retired(limits: Bounds, current: list[Replica], outdated: list[Replica]) -> list[Replica]:
    """Old pods to delete: those that serve nobody first, then as many as the newest template has replaced."""
    missing = sum(not pod.available for pod in current)
    spare = len(current) + len(outdated) - limits.least - missing
    broken = sorted((pod for pod in outdated if not pod.available), key=_dispensable)[: max(spare, 0)]
    available = sum(pod.available for pod in (*current, *outdated))
    serving = sorted((pod for pod in outdated if pod.available), key=_dispensable)
    return broken + serving[: max(available - limits.least, 0)]


def _dispensable(pod: Replica) -> tuple[bool, str, str]:
    """What goes first: a pod that is not available; among equals the one whose name sorts first, for determinism."""
    return pod.available, pod.created, pod.name


def status(deployment: Manifest, replicas: Iterable[Replica], *, now: datetime) -> Manifest:
    """The Deployment's status. Its times change only with what they are about."""
    pods = list(replicas)
    limits = bounds(deployment)
    available = sum(pod.available for pod in pods)
    counts = {
        "replicas": len(pods),
        "updatedReplicas": sum(pod.current for pod in pods),
        "readyReplicas": available,
        "availableReplicas": available,
        "unavailableReplicas": max(limits.replicas - available, 0),
    }
    enough = available >= limits.least
    before = deployment.get("status") or {}
    reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
    message = f"{available} of {limits.replicas} pods are available"
    return {
        "observedGeneration": deployment["metadata"]["generation"],
        **counts,
        "conditions": [
            _condition(before, "Available", status=enough, reason=reason, message=message, now=now),
            _progressing(deployment, pods, counts, now=now),
        ],
    }


def deadline(deployment: Manifest) -> float | None:
    """Seconds after its last progress at which an unfinished rollout counts as stalled; None once it is finished."""
    progressing = _find(deployment.get("status") or {}, "Progressing")
    if progressing.get("reason") != _UNFINISHED:
        return None
    return float(deployment["spec"].get("progressDeadlineSeconds", 600))


def _progressing(deployment: Manifest, pods: list[Replica], counts: Mapping[str, int], *, now: datetime) -> Manifest:
    before = deployment.get("status") or {}
    known = _find(before, "Progressing")
    wanted = bounds(deployment).replicas
    if len(pods) == wanted and all(pod.current and pod.available for pod in pods):
        message = f"all {wanted} pods of the newest template are available"
        return _condition(before, "Progressing", status=True, reason="NewReplicaSetAvailable", message=message, now=now)
    began = before.get("observedGeneration") != deployment["metadata"]["generation"]
    if began or not known or _progressed(before, counts):
        message = "pods of the newest template are being started"
        written = _condition(before, "Progressing", status=True, reason=_UNFINISHED, message=message, now=now)
        return {**written, "lastUpdateTime": rfc3339(now)}
    if known["reason"] != _UNFINISHED:
        return known  # finished once, whatever its pods do later; or stalled already
    limit = float(deployment["spec"].get("progressDeadlineSeconds", 600))
    if (now - parsed(known["lastUpdateTime"])).total_seconds() < limit:
        return known
    message = f"no pod became available for {limit:.0f} s"
    return _condition(before, "Progressing", status=False, reason=_STALLED, message=message, now=now)


def _progressed(before: Manifest, counts: Mapping[str, int]) -> bool:
    """Whether there are more new pods, more ready ones, or fewer old ones than before."""
    outdated = counts["replicas"] - counts["updatedReplicas"]
    return bool(
        counts["updatedReplicas"] > before.get("updatedReplicas", 0)
        or counts["readyReplicas"] > before.get("readyReplicas", 0)
        or outdated < before.get("replicas", 0) - before.get("updatedReplicas", 0)
    )


def _condition(before: Manifest, kind: str, *, status: bool, reason: str, message: str, now: datetime) -> Manifest:
    known = _find(before, kind)
    state = "True" if status else "False"
    since = known["lastTransitionTime"] if known.get("status") == state else rfc3339(now)
    written = {"type": kind, "status": state, "reason": reason, "message": message, "lastTransitionTime": since}
    unchanged = all(known.get(field) == value for field, value in written.items())
    return {**written, "lastUpdateTime": known["lastUpdateTime"] if unchanged else rfc3339(now)}


def _find(status: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return next((each for each in status.get("conditions") or [] if each["type"] == kind), {})


def _share(value: int | str, whole: int) -> float:
    return float(value) if isinstance(value, int) else whole * float(value.removesuffix("%")) / 100
