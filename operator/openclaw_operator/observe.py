"""Raw children -> `Observed`: what a decision is made from, frozen."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from openclaw_operator import names
from openclaw_operator.names import Manifest, Ref
from openclaw_operator.render.revision import Revision
from openclaw_operator.tiers import Incarnation, said

_NOTHING: Mapping[Incarnation, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Slot:
    """The Deployment of a slot.

    Attributes:
        revision: Revision of its template.
        replicas: Pods asked for.
        owns_replicas: Whether that number was last set by the operator, not by an autoscaler or a person.
        stalled: Kubernetes' sentence, when the rollout made no progress within its deadline.
        refused: Kubernetes' sentence, when pods could not even be created (quota, admission).
    """

    revision: str
    replicas: int
    owns_replicas: bool
    stalled: str = ""
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of the service.

    Attributes:
        ready: Whether it counts as ready: its model answered an inference.
        live: Whether it runs, or will: it has not ended, and is not being deleted.
        manifest: The pod as observed, for the diagnosis of what went wrong.
        tier: Where it said that its model's weights are; empty where it said nothing, None where it is yet to be asked.
    """

    name: str
    slot: str
    revision: str
    ready: bool
    live: bool
    manifest: Manifest
    tier: str | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that exists of one service."""

    children: Mapping[Ref, Manifest] = field(default_factory=lambda: MappingProxyType({}))
    revisions: tuple[Revision, ...] = ()
    slots: Mapping[str, Slot] = field(default_factory=lambda: MappingProxyType({}))
    pods: tuple[Pod, ...] = ()

    @property
    def latest(self) -> Revision | None:
        """The revision that became current last."""
        return max(self.revisions, key=lambda revision: revision.number, default=None)

    @property
    def live(self) -> tuple[Pod, ...]:
        """Pods that run, or will."""
        return tuple(pod for pod in self.pods if pod.live)

    def ready(self, revision: str) -> int:
        """Live pods of a revision that answered an inference."""
        return sum(pod.ready for pod in self.live if pod.revision == revision)

    @property
    def serving(self) -> int:
        """Live pods of any revision that answered an inference."""
        return sum(pod.ready for pod in self.live)


def observe(children: Iterable[Manifest], *, owner_uid: str, tiers: Mapping[Incarnation, str] = _NOTHING) -> Observed:
    """Sorts the children of one service.

    Objects that carry the label but belong to another owner, or to an earlier service of the same name, are not
    ours to decide about.

    Args:
        children: Everything that carries the service's label.
        owner_uid: UID of the service.
        tiers: What pods said of their model, as far as they were asked.
    """
    owned: dict[Ref, Manifest] = {}
    pods: list[Pod] = []
    for child in children:
        if child["kind"] == names.POD.name:
            pods.append(_pod(child, tiers))
        elif _owner(child) == owner_uid:
            owned[names.ref(child)] = child
    return Observed(
        children=MappingProxyType(owned),
        revisions=tuple(
            Revision.from_manifest(child) for child in owned.values() if child["kind"] == names.REVISION.name
        ),
        slots=MappingProxyType(
            {_label(child, names.SLOT_LABEL): _slot(child) for child in owned.values() if child["kind"] == "Deployment"}
        ),
        pods=tuple(sorted(pods, key=lambda pod: pod.name)),
    )


def _owner(manifest: Manifest) -> str:
    references = manifest["metadata"].get("ownerReferences") or []
    return next((str(reference["uid"]) for reference in references if reference.get("controller")), "")


def _label(manifest: Manifest, label: str) -> str:
    return str((manifest["metadata"].get("labels") or {}).get(label, ""))


def _slot(deployment: Manifest) -> Slot:
    metadata, spec = deployment["metadata"], deployment["spec"]
    status = deployment.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    progressing = conditions.get("Progressing", {})
    failure = conditions.get("ReplicaFailure", {})
    # What Kubernetes said of an earlier template is no news about this one.
    current = status.get("observedGeneration", 0) >= metadata.get("generation", 0)
    stalled = current and progressing.get("reason") == "ProgressDeadlineExceeded"
    refused = current and failure.get("status") == "True"
    return Slot(
        revision=_label(spec["template"], names.REVISION_LABEL),
        replicas=spec.get("replicas", 1),
        owns_replicas=owns_replicas(metadata.get("managedFields") or ()),
        stalled=progressing.get("message", "") if stalled else "",
        refused=failure.get("message", "") if refused else "",
    )


def owns_replicas(managed_fields: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the operator is the one who last set `spec.replicas`."""
    return any(
        entry.get("manager") == names.FIELD_MANAGER
        and not entry.get("subresource")
        and "f:replicas" in (entry.get("fieldsV1") or {}).get("f:spec", {})
        for entry in managed_fields
    )


def is_ready(manifest: Manifest) -> bool:
    """Whether the object is a pod that counts as ready."""
    conditions = (manifest.get("status") or {}).get("conditions") or []
    return manifest["kind"] == names.POD.name and any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
    )


def _pod(manifest: Manifest, tiers: Mapping[Incarnation, str]) -> Pod:
    phase = (manifest.get("status") or {}).get("phase")
    return Pod(
        name=manifest["metadata"]["name"],
        slot=_label(manifest, names.SLOT_LABEL),
        revision=_label(manifest, names.REVISION_LABEL),
        ready=is_ready(manifest),
        live=not manifest["metadata"].get("deletionTimestamp") and phase not in {"Failed", "Succeeded"},
        manifest=manifest,
        tier=said(manifest, tiers),
    )
