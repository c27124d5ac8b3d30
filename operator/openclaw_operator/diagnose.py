"""Why pods are not ready: a reason for programs and the sentence that a user needs.

A cause stays the cause while the container is being restarted: between two attempts a pod looks as if it were
merely starting, and a reason that comes and goes helps nobody.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from openclaw_operator import names
from openclaw_operator.names import Manifest

_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CREATE = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_KILLED_FOR_MEMORY = "OOMKilled"
_REASON = re.compile("[A-Z][A-Za-z0-9]{0,99}")
_TAIL = 400  # characters of a crashed server's last words that fit a condition


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps a pod from being ready."""

    reason: str
    message: str


def diagnose(pods: Iterable[Manifest]) -> Problem | None:
    """The problem of the first of `pods` that has one, in the order given."""
    return next((problem for pod in pods if (problem := _of_pod(pod))), None)


def _of_pod(pod: Manifest) -> Problem | None:
    status = pod.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    if conditions.get("Ready", {}).get("status") == "True":
        return None
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Problem("Unschedulable", f"no node has room for the pod: {scheduled.get('message', '')}")
    if status.get("reason") == "Evicted":
        return Problem("Evicted", f"the node evicted the pod: {status.get('message', '')}")
    for container in _containers(status):
        problem = _of_container(pod, container)
        if problem:
            return problem
    return None


def _containers(status: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def _of_container(pod: Manifest, container: dict[str, Any]) -> Problem | None:
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason = waiting.get("reason", "")
    if reason in _PULL:
        detail = waiting.get("message") or reason
        return Problem("ImagePullFailed", f"image {container.get('image', '')} cannot be pulled: {detail}")
    if reason in _CREATE:
        return Problem("ContainerConfigError", f"the container cannot be created: {waiting.get('message') or reason}")
    ended = (container.get("state") or {}).get("terminated") or (container.get("lastState") or {}).get("terminated")
    if ended is None or _goes_on(container, ended):
        return None
    return _of_exit(pod, container, ended)


def _goes_on(container: dict[str, Any], ended: dict[str, Any]) -> bool:
    """Whether an end is none that keeps the pod from starting.

    A container before the server that ended well has done its part. The one that optimizes may be killed for its
    memory once: started again, it passes the model on as it is.
    """
    if container["name"] == names.CONTAINER:
        return False
    again = container.get("restartCount", 0) + ("running" not in (container.get("state") or {}))
    killed = ended.get("reason") == _KILLED_FOR_MEMORY
    return ended.get("exitCode") == 0 or (container["name"] == names.OPTIMIZE and killed and again <= 1)


def _of_exit(pod: Manifest, container: dict[str, Any], ended: dict[str, Any]) -> Problem | None:
    said = _reported(ended.get("message") or "")
    if said:
        return said
    restarts = container.get("restartCount", 0)
    if ended.get("reason") == _KILLED_FOR_MEMORY:
        limit = _memory_limit(pod, container["name"])
        bound = f"its memory limit of {limit}" if limit else "the memory of its node"
        advice = "raise resources.limits.memory" if limit else "set resources.requests.memory to what it needs"
        return Problem("OutOfMemory", f"the server needed more than {bound} and was killed: {advice}")
    words = (ended.get("message") or "").strip()[-_TAIL:]
    tail = f"; its last words: {words}" if words else f"; see `kubectl logs {pod['metadata']['name']} --previous`"
    exits = f"container {container['name']} exited with code {ended.get('exitCode')}"
    return Problem("CrashLooping", f"{exits} and was restarted {restarts} times{tail}")


def _reported(message: str) -> Problem | None:
    """What the server itself wrote to its termination log; any image may run, so it may also be anything else."""
    try:
        report = json.loads(message)
        reason, sentence = report["reason"], report["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    fits = isinstance(reason, str) and isinstance(sentence, str) and _REASON.fullmatch(reason)
    return Problem(reason, sentence) if fits else None


def _memory_limit(pod: Manifest, container: str) -> str:
    # The step before the server has the server's.
    owner = names.CONTAINER if container == names.OPTIMIZE else container
    for spec in (pod.get("spec") or {}).get("containers") or []:
        if spec["name"] == owner:
            return str(((spec.get("resources") or {}).get("limits") or {}).get("memory", ""))
    return ""
