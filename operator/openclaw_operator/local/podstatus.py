"""A pod's status, from the states of its server and of the step before it. Pure; shaped as a kubelet reports it."""

from dataclasses import dataclass
from typing import Any

from openclaw_operator import names
from openclaw_operator.names import Manifest

FIRST_BACKOFF = 1.0
MAX_BACKOFF = 60.0
BACKOFF_RESET = 600.0
"""Seconds that a container must have run for its failures before to be forgotten."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended.

    Attributes:
        exit_code: As a shell tells it.
        message: What it wrote to its termination log, or its last words.
        started: When it was started, RFC 3339.
        finished: When it ended, RFC 3339.
    """

    exit_code: int
    message: str
    started: str
    finished: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container does not run right now."""

    reason: str = "ContainerCreating"
    message: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """The state of a container.

    Attributes:
        restarts: How often it was started again.
        running: When it was started, RFC 3339; empty while it does not run.
        waiting: Why it does not run.
        started: Whether its startup probe has succeeded.
        ready: Whether its readiness probe succeeds.
        routed: Whether the gateway sends it requests.
        last: How it ended last.
        pid: The process, 0 while there is none.
        port: The port it listens on, 0 while there is none.
        completed: Whether it has done what it was there for, and is not started again.
    """

    restarts: int = 0
    running: str = ""
    waiting: Waiting = Waiting()
    started: bool = False
    ready: bool = False
    routed: bool = False
    last: Ended | None = None
    pid: int = 0
    port: int = 0
    completed: bool = False


def backoff(failures: int) -> float:
    """Seconds before the next start, after so many failures in a row."""
    return float(min(FIRST_BACKOFF * 2 ** max(failures - 1, 0), MAX_BACKOFF))


def pod_status(pod: Manifest, container: Container, *, now: str, step: Container | None = None) -> Manifest:
    """The status of `pod`.

    Args:
        pod: As it is known, with the status before.
        container: State of its container.
        now: RFC 3339 time for conditions that change.
        step: State of the init container that optimizes the model; None where there is none.
    """
    before = {each["type"]: each for each in (pod.get("status") or {}).get("conditions") or []}
    unready = "" if container.ready else "ContainersNotReady"
    unrouted = unready or ("" if container.routed else "GatewayNotReady")
    uninitialized = "" if step is None or step.completed else "ContainersNotInitialized"
    states = (("PodScheduled", ""), ("Initialized", uninitialized), ("ContainersReady", unready), ("Ready", unrouted))
    specs = [each for each in pod["spec"].get("initContainers") or () if each["name"] == names.OPTIMIZE]
    steps = [_container_status(spec, step) for spec in specs if step]
    return {
        "phase": "Running" if container.running or container.last else "Pending",
        "podIP": "127.0.0.1",
        "conditions": [_condition(before.get(kind, {}), kind, reason=reason, now=now) for kind, reason in states],
        **({"initContainerStatuses": steps} if steps else {}),
        "containerStatuses": [_container_status(pod["spec"]["containers"][0], container)],
        "local": {"pid": container.pid, "port": container.port},
    }


def address(pod: Manifest) -> int | None:
    """The port to send requests to; None while the container is not ready or the pod is leaving."""
    status = pod.get("status") or {}
    ready = any(each["type"] == "ContainersReady" and each["status"] == "True" for each in status.get("conditions", ()))
    leaving = pod["metadata"].get("deletionTimestamp")
    return (status.get("local") or {}).get("port") or None if ready and not leaving else None


def _container_status(spec: Manifest, container: Container) -> Manifest:
    last = {"terminated": _terminated(container.last)} if container.last and not container.completed else {}
    return {
        "name": spec["name"],
        "image": spec.get("image", ""),
        "ready": container.ready or container.completed,
        "started": container.started,
        "restartCount": container.restarts,
        "state": _state(container),
        "lastState": last,
    }


def _state(container: Container) -> dict[str, Any]:
    if container.completed and container.last:
        return {"terminated": _terminated(container.last)}
    if container.running:
        return {"running": {"startedAt": container.running}}
    waiting = {"reason": container.waiting.reason}
    return {"waiting": waiting | ({"message": container.waiting.message} if container.waiting.message else {})}


def _terminated(ended: Ended) -> dict[str, Any]:
    return {
        "exitCode": ended.exit_code,
        "reason": "Completed" if ended.exit_code == 0 else "Error",
        "message": ended.message,
        "startedAt": ended.started,
        "finishedAt": ended.finished,
    }


def _condition(before: Manifest, kind: str, *, reason: str, now: str) -> Manifest:
    state = "False" if reason else "True"
    since = before["lastTransitionTime"] if before.get("status") == state else now
    return {"type": kind, "status": state, "lastTransitionTime": since} | ({"reason": reason} if reason else {})
