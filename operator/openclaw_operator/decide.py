"""The one composition: everything that the operator can ever do to a service stands here.

(service, observed, config, now) -> what to apply, what to delete, which status, which events, when to look again
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from openclaw_operator import names, status
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.config import Config
from openclaw_operator.drift import drift, stamped
from openclaw_operator.errors import Terminal
from openclaw_operator.names import Manifest, Ref
from openclaw_operator.observe import Observed, Slot
from openclaw_operator.optimization import sentence
from openclaw_operator.render.account import service_account
from openclaw_operator.render.autoscaler import autoscaled, autoscaler, min_replicas
from openclaw_operator.render.deployment import deployment
from openclaw_operator.render.disruption import disruption_budget
from openclaw_operator.render.revision import Revision, controller_revision, new_revision, spec_hash
from openclaw_operator.render.server_config import config_map
from openclaw_operator.render.service import service_address

STABLE = "a"

_TOLD = {"Optimized": "Optimized", "NothingFaster": "NothingFaster", "Failed": "OptimizationFailed"}
"""Reasons of events, by what came of optimizing the model."""

PROGRESS_HOLD = 5.0
"""Seconds: a state that is over sooner is not worth a write, and under load it is the writes that make it last."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a service, for `kubectl describe`; `at` is an RFC 3339 time."""

    type: str
    reason: str
    message: str
    at: str

    @property
    def urgent(self) -> bool:
        """Whether somebody has to act on it."""
        return self.type == "Warning"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now.

    Attributes:
        apply: What pods need, and then what starts them, in waves: those of one wave in any order.
        later: What looks after pods that have started: to apply once `status` is written.
        delete: Children that are not wanted any more.
        status: The status to write; None where it is written already.
        events: What to tell.
        hold: Seconds for which `status` is to stay the same before it is written.
    """

    apply: tuple[tuple[Manifest, ...], ...] = ()
    later: tuple[Manifest, ...] = ()
    delete: tuple[Manifest, ...] = ()
    status: dict[str, Any] | None = None
    events: tuple[Event, ...] = ()
    hold: float = 0.0

    @property
    def quiet(self) -> bool:
        """Whether nothing is written."""
        return not (any(self.apply) or self.later or self.delete or self.status or self.events)


def decide(service: InferenceService, observed: Observed, config: Config, *, now: str) -> Decision:
    """What brings `observed` to what `service` asks for, one step.

    Args:
        service: The service, valid.
        observed: What exists of it.
        config: Settings of the operator.
        now: RFC 3339 time, for conditions that change.
    """
    revision = current_revision(service, observed, config)
    desired = _desired(service, revision, observed)
    *waves, later = (
        tuple(_locked(manifest, observed) for manifest in map(stamped, wave) if _differs(manifest, observed))
        for wave in desired
    )
    wanted = {names.ref(manifest) for wave in desired for manifest in wave}
    least = 0 if service.spec.suspend else min_replicas(service)
    url = config.url(namespace=service.metadata.namespace, name=service.metadata.name)
    written = status.served(service, revision, observed, least=least, url=url, now=now)
    return Decision(
        apply=tuple(wave for wave in waves if wave),
        later=later,
        delete=_obsolete(observed, wanted, current=revision, limit=config.revision_history_limit),
        status=written if written != service.status else None,
        events=transitions(service.status, written, at=now) + optimized(service.status, written, at=now),
        hold=PROGRESS_HOLD if _mere_progress(service.status, written) else 0.0,
    )


def refuse(service: Manifest, terminal: Terminal, observed: Observed, *, now: str) -> Decision:
    """What to do about a service whose spec cannot be carried out: nothing but to say so."""
    before = service.get("status") or {}
    written = status.refused(service, terminal, observed, now=now)
    if written == before:
        return Decision()
    return Decision(status=written, events=transitions(before, written, at=now))


def current_revision(service: InferenceService, observed: Observed, config: Config) -> Revision:
    """The revision that the spec asks for: the one kept from when it was first rolled out, else a new one."""
    latest = observed.latest
    wanted = spec_hash(service)
    kept = max((each for each in observed.revisions if each.spec_hash == wanted), key=_number, default=None)
    if kept is None:
        return new_revision(
            service,
            config,
            number=latest.number + 1 if latest else 1,
            default_image=latest.default_image if latest else config.runtime_image,
        )
    if latest is None or kept.number == latest.number:
        return kept
    return replace(kept, number=latest.number + 1)


def transitions(before: Mapping[str, Any], after: Mapping[str, Any], *, at: str) -> tuple[Event, ...]:
    """An event where Ready changed its state or its reason from one status to the next."""
    was, now = status.condition(before, "Ready"), status.condition(after, "Ready")
    if (was.get("status"), was.get("reason")) == (now["status"], now["reason"]):
        return ()
    progress = now["status"] == "True" or now["reason"] in status.PROGRESS_REASONS
    if _mere_progress(before, after):
        return ()  # one step of a rollout after the other: the end of it is what tells something
    return (Event("Normal" if progress else "Warning", now["reason"], now["message"], at),)


def optimized(before: Mapping[str, Any], after: Mapping[str, Any], *, at: str) -> tuple[Event, ...]:
    """An event for each thing that newly came of optimizing the model."""
    known = {_gist(entry) for entry in status.optimization(before)}
    return tuple(
        Event("Warning" if entry["outcome"] == "Failed" else "Normal", _TOLD[entry["outcome"]], sentence(entry), at)
        for entry in status.optimization(after)
        if _gist(entry) not in known
    )


def _gist(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(entry.get(field) for field in ("nodeType", "mode", "outcome", "form", "reason"))


def _mere_progress(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a service that was on its way still is."""
    was, now = status.condition(before, "Ready"), status.condition(after, "Ready")
    return (not was or was["reason"] in status.PROGRESS_REASONS) and now["reason"] in status.PROGRESS_REASONS


def replicas(service: InferenceService, slot: Slot | None) -> int | None:
    """The number of replicas to apply; None where it is somebody else's.

    An autoscaler, or a person with `kubectl scale`, takes the field over by writing it. Until then it stays in what
    we apply: server-side apply would reset to one a field that its only owner leaves out.
    """
    if service.spec.suspend:
        return 0
    if slot is None or not autoscaled(service):
        return min_replicas(service)
    return max(slot.replicas, min_replicas(service)) if slot.owns_replicas else None


def _desired(
    service: InferenceService, revision: Revision, observed: Observed
) -> tuple[tuple[Manifest, ...], tuple[Manifest, ...], tuple[Manifest, ...]]:
    """Every child: what pods need to start, what starts them, and what looks after them from then on."""
    count = replicas(service, observed.slots.get(STABLE))
    before = (
        service_account(service),
        config_map(service, revision.server_config),
        controller_revision(service, revision),
        service_address(service),
    )
    after = (autoscaler(service, slot=STABLE), disruption_budget(service))
    start = (deployment(service, revision, slot=STABLE, replicas=count),)
    return before, start, tuple(manifest for manifest in after if manifest)


def _differs(manifest: Manifest, observed: Observed) -> bool:
    live = observed.children.get(names.ref(manifest))
    return live is None or bool(drift(manifest, live))


def _locked(manifest: Manifest, observed: Observed) -> Manifest:
    """Ties a number of replicas to the version it was read from: an autoscaler may be writing it right now."""
    live = observed.children.get(names.ref(manifest))
    if live is None or "replicas" not in manifest.get("spec", {}):
        return manifest
    metadata = {**manifest["metadata"], "resourceVersion": live["metadata"]["resourceVersion"]}
    return {**manifest, "metadata": metadata}


def _obsolete(observed: Observed, wanted: set[Ref], *, current: Revision, limit: int) -> tuple[Manifest, ...]:
    """Children that nothing needs: kinds switched off, and revisions beyond the history with their configuration."""
    running = {pod.revision for pod in observed.pods} | {slot.revision for slot in observed.slots.values()}
    history = sorted((each for each in observed.revisions if each.hash != current.hash), key=_number, reverse=True)
    kept = {each.hash for each in history[:limit]} | running
    kept_names = set()
    for each in history:
        if each.hash in kept:
            kept_names |= _names_of(each)
    # Pods whose revision somebody deleted read a configuration that nothing names any more.
    kept_kinds = {"ConfigMap"} if running - {current.hash, *(each.hash for each in history), ""} else set()
    return tuple(
        child
        for ref, child in observed.children.items()
        if ref not in wanted
        and ref.kind not in kept_kinds
        and not (ref.kind in {"ControllerRevision", "ConfigMap"} and _identity(child) in kept_names)
    )


def _names_of(revision: Revision) -> set[str]:
    """What identifies the children that a revision needs: its own hash, and that of its configuration."""
    return {revision.hash, names.digest(revision.server_config)}


def _identity(child: Manifest) -> str:
    return str(child["metadata"]["name"]).rpartition("-")[2]


def _number(revision: Revision) -> int:
    return revision.number
