"""The status of a pod, from the state of its one container. Pure; shaped as a kubelet reports it."""

from dataclasses import dataclass
from typing import Any

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


def backoff(failures: int) -> float:
    """Seconds before the next start, after so many failures in a row."""
    return float(min(FIRST_BACKOFF * 2 ** max(failures - 1, 0), MAX_BACKOFF))


def pod_status(pod: Manifest, container: Container, *, now: str) -> Manifest:
    """The status of `pod`.

    Args:
        pod: As it is known, with the status before.
        container: State of its container.
        now: RFC 3339 time for conditions that change.
    """
    before = {each["type"]: each for each in (pod.get("status") or {}).get("conditions") or []}
    unready = "" if container.ready else "ContainersNotReady"
    unrouted = unready or ("" if container.routed else "GatewayNotReady")
    states = (("PodScheduled", ""), ("Initialized", ""), ("ContainersReady", unready), ("Ready", unrouted))
    spec = pod["spec"]["containers"][0]
    return {
        "phase": "Running" if container.running or container.last else "Pending",
        "podIP": "127.0.0.1",
        "conditions": [_condition(before.get(kind, {}), kind, reason=reason, now=now) for kind, reason in states],
        "containerStatuses": [
            {
                "name": spec["name"],
                "image": spec.get("image", ""),
                "ready": container.ready,
                "started": container.started,
                "restartCount": container.restarts,
                "state": _state(container),
                "lastState": {"terminated": _terminated(container.last)} if container.last else {},
            }
        ],
        "local": {"pid": container.pid, "port": container.port},
    }


def address(pod: Manifest) -> int | None:
    """The port to send requests to; None while the container is not ready or the pod is leaving."""
    status = pod.get("status") or {}
    ready = any(each["type"] == "ContainersReady" and each["status"] == "True" for each in status.get("conditions", ()))
    leaving = pod["metadata"].get("deletionTimestamp")
    return (status.get("local") or {}).get("port") or None if ready and not leaving else None


def _state(container: Container) -> dict[str, Any]:
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
