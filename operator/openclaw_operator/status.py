"""The status of a service: conditions, counts, traffic. Never reads a clock; times change only with a state."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openclaw_operator import names
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.diagnose import Problem, diagnose
from openclaw_operator.errors import Terminal
from openclaw_operator.names import Manifest
from openclaw_operator.observe import Observed, Slot
from openclaw_operator.optimization import is_optimizing, optimizations
from openclaw_operator.render.revision import Revision
from openclaw_operator.tiers import Entry, counted, hint

Status = dict[str, Any]

PROGRESS_REASONS = frozenset({"RollingOut", "PodsStarting", "Optimizing", "Suspended"})
"""Reasons of a service that is not Ready although nothing is wrong."""

_KEPT = ("url", "selector", "revision", "model")
"""What a status keeps while the spec is refused."""


@dataclass(frozen=True, slots=True)
class Aspect:
    """One condition before it gets its times."""

    type: str
    status: str
    reason: str
    message: str


def served(
    service: InferenceService, revision: Revision, observed: Observed, *, least: int, url: str, now: str
) -> Status:
    """The status of a service whose children were decided.

    Args:
        service: The service.
        revision: The revision that it should run.
        observed: What exists of it.
        least: Fewest pods of the revision that must be ready.
        url: Where the service answers.
        now: Time for conditions whose state changes, RFC 3339.
    """
    ready = observed.ready(revision.hash)
    tiers = _tiers(service.status, revision, observed)
    aspects = (
        _suspended(observed) if service.spec.suspend else _aspects(revision, observed, least=least, remark=hint(tiers))
    )
    status: Status = {
        "observedGeneration": service.metadata.generation,
        "conditions": _conditions(aspects, service.status, generation=service.metadata.generation, now=now),
        "url": url,
        "replicas": len(observed.live),
        "readyReplicas": ready,
        "selector": ",".join(f"{name}={value}" for name, value in names.selector(service.metadata.name).items()),
        "revision": revision.hash,
    }
    return status | _model(revision, observed, tiers) | _traffic(observed)


def refused(service: Manifest, terminal: Terminal, observed: Observed, *, now: str) -> Status:
    """The status of a service whose spec cannot be carried out: the last good state goes on serving."""
    before = service.get("status") or {}
    generation = service["metadata"].get("generation", 1)
    aspects = [
        Aspect("Ready", "False", terminal.reason, terminal.message + _still_serving(observed.serving)),
        _available(observed),
        Aspect("Progressing", "False", terminal.reason, terminal.message),
    ]
    return {
        **{field: before[field] for field in _KEPT if field in before},
        "observedGeneration": generation,
        "conditions": _conditions(aspects, before, generation=generation, now=now),
        "replicas": len(observed.live),
        "readyReplicas": observed.serving,
        **_traffic(observed),
    }


def _model(revision: Revision, observed: Observed, tiers: list[Entry]) -> Status:
    """What became of the model in the pods of the revision, as far as they told."""
    found = {
        "optimization": optimizations(pod.manifest for pod in observed.live if pod.revision == revision.hash),
        "tiers": tiers,
    }
    told = {field: entries for field, entries in found.items() if entries}
    return {"model": told} if told else {}


def _tiers(before: Mapping[str, Any], revision: Revision, observed: Observed) -> list[Entry]:
    """In which tier the pods of the revision have the model; what was told of another revision is nothing to go by."""
    known = (before.get("model") or {}).get("tiers") or () if before.get("revision") == revision.hash else ()
    ready = (pod for pod in observed.live if pod.ready and pod.revision == revision.hash)
    return counted((pod.tier for pod in ready), known)


def _traffic(observed: Observed) -> Status:
    """All of it goes to the one slot, which is called by the revision that most of the pods in service have."""
    counted = Counter(pod.revision for pod in observed.live if pod.ready)
    shares = [{"slot": "a", "revision": revision, "percent": 100} for revision, _ in counted.most_common(1)]
    return {"traffic": shares} if shares else {}


def condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The condition of a kind, empty where there is none."""
    return next((each for each in status.get("conditions") or [] if each["type"] == kind), {})


def optimization(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a status says of optimizing the model: an entry for each kind of nodes."""
    return list((status.get("model") or {}).get("optimization") or ())


def _aspects(revision: Revision, observed: Observed, *, least: int, remark: str) -> list[Aspect]:
    slot = observed.slots.get("a")
    ready = observed.ready(revision.hash)
    rolled_out = _rolled_out(slot, revision, observed)
    problem = None if ready >= least and rolled_out else _problem(slot, revision, observed)
    loaded = _loaded(problem, ready, remark=remark)
    available = _available(observed)
    if problem:
        suffix = _still_serving(observed.serving - ready)
        return [
            Aspect("Ready", "False", problem.reason, problem.message + suffix),
            available,
            loaded,
            Aspect("Progressing", "False", problem.reason, problem.message),
        ]
    if rolled_out and ready >= least:
        message = f"{_pods(ready)} of revision {revision.hash} answered an inference"
        return [
            Aspect("Ready", "True", "InferenceAnswered", message),
            available,
            loaded,
            Aspect("Progressing", "False", "RolledOut", f"revision {revision.hash} is rolled out"),
        ]
    reason, message = _optimizing(revision, observed) or _progress(
        slot, revision, least=least, ready=ready, rolled_out=rolled_out
    )
    return [
        Aspect("Ready", "False", reason, message + _still_serving(observed.serving - ready)),
        available,
        loaded,
        Aspect("Progressing", "True", reason, message),
    ]


def _optimizing(revision: Revision, observed: Observed) -> tuple[str, str] | None:
    """What is going on where pods are not through with the step before their server."""
    pods = [pod for pod in observed.live if pod.revision == revision.hash]
    busy = sum(is_optimizing(pod.manifest) for pod in pods)
    if not busy:
        return None
    return "Optimizing", (
        f"the model is made faster before it is served, once for each kind of nodes: {busy} of {_pods(len(pods))} of "
        f"revision {revision.hash} {'is' if busy == 1 else 'are'} at it, or {'waits' if busy == 1 else 'wait'} for the "
        "result of another; spec.runtime.optimize.timeoutSeconds bounds it"
    )


def _rolled_out(slot: Slot | None, revision: Revision, observed: Observed) -> bool:
    """Whether every live pod is of the revision. More pods than are asked for, while scaling, do not matter.

    Told by the pods themselves: the counts of a Deployment run behind them, and behind each other.
    """
    current = slot is not None and slot.revision == revision.hash
    return current and {pod.revision for pod in observed.live} == {revision.hash}


def _progress(slot: Slot | None, revision: Revision, *, least: int, ready: int, rolled_out: bool) -> tuple[str, str]:
    if slot is not None and slot.replicas == 0 and not slot.owns_replicas:
        return "ScaledToZero", "somebody set the Deployment to 0 replicas: scale it up, or use spec.suspend to stop it"
    if rolled_out:
        return "PodsStarting", f"{ready} of at least {_pods(least)} answered an inference"
    return "RollingOut", f"revision {revision.hash} is being rolled out: {ready} of its pods answered an inference"


def _problem(slot: Slot | None, revision: Revision, observed: Observed) -> Problem | None:
    # A pod that was evicted is not live any more, and still tells why.
    pods = sorted((pod for pod in observed.pods if pod.revision == revision.hash), key=lambda pod: not pod.live)
    remaining = [pod.manifest for pod in pods if not pod.manifest["metadata"].get("deletionTimestamp")]
    if problem := diagnose(remaining):
        return problem
    if slot is None or slot.revision != revision.hash:
        return None
    if slot.refused:
        return Problem("PodsRefused", f"pods cannot be created: {slot.refused}")
    if slot.stalled:
        return Problem("ProgressDeadlineExceeded", f"pods did not become ready in time: {slot.stalled}")
    return None


def _still_serving(pods: int) -> str:
    if pods == 0:
        return ""
    return f"; {_pods(pods)} of an earlier revision {'keeps' if pods == 1 else 'keep'} serving"


def _pods(count: int) -> str:
    return f"{count} pod" if count == 1 else f"{count} pods"


def _available(observed: Observed) -> Aspect:
    if observed.serving:
        return Aspect("Available", "True", "PodsServing", "requests are answered")
    return Aspect("Available", "False", "NoPodServing", "no pod answers requests")


def _loaded(problem: Problem | None, ready: int, *, remark: str) -> Aspect:
    if ready:
        return Aspect("ModelLoaded", "True", "Loaded", "the model is loaded and answered an inference" + remark)
    if problem and problem.reason.startswith("Model"):
        return Aspect("ModelLoaded", "False", problem.reason, problem.message)
    return Aspect("ModelLoaded", "Unknown", "Loading", "no pod has loaded the model yet")


def _suspended(observed: Observed) -> list[Aspect]:
    message = "spec.suspend is true: no pods run; set it to false to serve"
    return [
        Aspect("Ready", "False", "Suspended", message),
        _available(observed),
        Aspect("Progressing", "False", "Suspended", message),
    ]


def _conditions(aspects: list[Aspect], before: Mapping[str, Any], *, generation: int, now: str) -> list[dict[str, Any]]:
    result = []
    for aspect in aspects:
        known = condition(before, aspect.type)
        since = known["lastTransitionTime"] if known.get("status") == aspect.status else now
        result.append(
            {
                "type": aspect.type,
                "status": aspect.status,
                "reason": aspect.reason,
                "message": aspect.message[:32768],
                "lastTransitionTime": since,
                "observedGeneration": generation,
            }
        )
    return result
