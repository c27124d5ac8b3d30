"""A cluster in memory: the objects and rules of an API server, without one.

What holds of a real API server and that the operator or the supervisor builds on, holds here: resource versions that
grow, server-side apply with field ownership, the scale subresource, optimistic locks, immutable fields, UID
preconditions, garbage collection by owner, graceful deletion of pods, and a watch. Lists are owned as a whole.
"""

import copy
import itertools
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

from openclaw_operator import names
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.cluster.ownership import Owners, leaves, merged, pruned, to_managed_fields
from openclaw_operator.cluster.port import ApiError, Listing
from openclaw_operator.decide import Event
from openclaw_operator.errors import Terminal
from openclaw_operator.names import Key, Kind, Manifest, Ref

Watcher = Callable[[str, Manifest], None]

_SERVER_FIELDS = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "deletionTimestamp")
_IMMUTABLE = {
    "Deployment": (("spec", "selector"),),
    "ControllerRevision": (("data",),),
}


class MemoryCluster:
    """Implements `cluster.port.Cluster`, and what users, kubelets and autoscalers do beside it.

    Every object handed out is a copy. Watchers are called at once, in the order of the writes.
    """

    def __init__(self, *, clock: Callable[[], str], new_uid: Callable[[], str] = lambda: str(uuid.uuid4())) -> None:
        """
        Args:
            clock: The time, RFC 3339.
            new_uid: A UID never given before.
        """
        self._clock = clock
        self._new_uid = new_uid
        self._versions = itertools.count(1)
        self._objects: dict[Ref, Manifest] = {}
        self._owners: dict[Ref, Owners] = {}
        self._watchers: list[Watcher] = []
        self.events: deque[tuple[Key, Event]] = deque(maxlen=1000)
        """What was emitted, oldest first."""

    async def list(self, kind: Kind) -> Listing:
        return Listing(kind, self.all(kind.name))

    async def service(self, key: Key) -> Manifest | None:
        return self.get(Ref(names.SERVICE_KIND.name, key.namespace, key.name))

    def all(self, kind: str) -> tuple[Manifest, ...]:
        """Every object of a kind."""
        return tuple(copy.deepcopy(each) for reference, each in self._objects.items() if reference.kind == kind)

    def get(self, reference: Ref) -> Manifest | None:
        return copy.deepcopy(self._objects.get(reference))

    def subscribe(self, watcher: Watcher) -> Callable[[], None]:
        """Calls `watcher` with ADDED, MODIFIED or DELETED and the object, from now on. Returns what ends it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    async def apply(self, manifest: Manifest, *, manager: str = names.FIELD_MANAGER) -> Manifest:
        reference = names.ref(manifest)
        live = self._objects.get(reference)
        given = _without_server_fields(manifest)
        owners = self._owners.get(reference, Owners())
        _check_lock(manifest, live)
        base = live or {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": {}}
        claimed = leaves(given)
        kept = pruned(base, owners.abandoned(manager, claimed))
        written = _with_defaults(merged(kept, given))
        _validate(written, live)
        stored = self._store(written, owners.apply(manager, claimed, before=base, after=given))
        if live is None and self._is_orphan(stored):
            await self._remove(reference)  # its owner went while it was being written
        return stored

    async def update_status(self, service: Manifest, status: Manifest) -> Manifest:
        reference = names.ref(service)
        _check_lock(service, self._existing(reference))
        return self.write_status(reference, status)

    def write_status(self, reference: Ref, status: Manifest) -> Manifest:
        """Replaces the status of an object: the status subresource. 404 where the object is gone."""
        live = self._existing(reference)
        return self._store({**live, "status": copy.deepcopy(status)}, self._owners[reference])

    def scale(self, reference: Ref, replicas: int, *, manager: str) -> Manifest:
        """Sets `spec.replicas`, as an autoscaler or `kubectl scale` does: a change takes the field over."""
        if replicas < 0:
            raise _refusal(reference, f"spec.replicas: {replicas}: must be at least 0")
        live = self._existing(reference)
        if live["spec"].get("replicas") == replicas:
            return copy.deepcopy(live)
        written = {**live, "spec": {**live["spec"], "replicas": replicas}}
        return self._store(written, self._owners[reference].take(f"{manager}/scale", ("spec", "replicas")))

    async def delete(self, manifest: Manifest, *, grace: bool = True) -> None:
        """Deletes the object, and what it owns, if it has the UID of `manifest`.

        A pod is only marked as leaving while `grace` is given: whoever runs it deletes it for good without.
        """
        reference = names.ref(manifest)
        live = self._objects.get(reference)
        if live is None:
            return
        uid = manifest["metadata"].get("uid")
        if uid and uid != live["metadata"]["uid"]:
            message = f"{_shown(reference)} has UID {live['metadata']['uid']}, not {uid}: it was replaced"
            raise ApiError(message, status=409, reason="Conflict")
        if grace and reference.kind == names.POD.name:
            self._mark(live)
        else:
            await self._remove(reference)

    async def emit(self, service: Manifest, event: Event) -> None:
        key = names.key_of(service)
        if key:
            self.events.append((key, event))

    def _mark(self, pod: Manifest) -> None:
        if pod["metadata"].get("deletionTimestamp"):
            return
        leaving = {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": self._clock()}}
        self._store(leaving, self._owners[names.ref(pod)])

    async def _remove(self, reference: Ref) -> None:
        gone = self._objects.pop(reference)
        del self._owners[reference]
        gone["metadata"]["resourceVersion"] = str(next(self._versions))
        self._tell("DELETED", gone)
        uid = gone["metadata"]["uid"]
        owned = [each for each in self._objects.values() if uid in _owner_uids(each)]
        for each in owned:
            await self.delete(each)

    def _is_orphan(self, manifest: Manifest) -> bool:
        owners = _owner_uids(manifest)
        return bool(owners) and owners.isdisjoint(each["metadata"]["uid"] for each in self._objects.values())

    def _existing(self, reference: Ref) -> Manifest:
        live = self._objects.get(reference)
        if live is None:
            raise ApiError(f"{_shown(reference)} not found", status=404, reason="NotFound")
        return live

    def _store(self, written: Manifest, owners: Owners) -> Manifest:
        """Keeps the object as a new version, unless it is what is kept already."""
        reference = names.ref(written)
        before = self._objects.get(reference)
        metadata = dict(written["metadata"])
        if before is None:
            metadata |= {"uid": self._new_uid(), "creationTimestamp": self._clock(), "generation": 1}
        elif written.get("spec") != before.get("spec"):
            metadata["generation"] = before["metadata"]["generation"] + 1
        metadata["managedFields"] = to_managed_fields(owners, api_version=written["apiVersion"])
        stored = {**written, "metadata": metadata}
        if before is not None and stored == before:
            return copy.deepcopy(before)
        metadata["resourceVersion"] = str(next(self._versions))
        self._objects[reference] = copy.deepcopy(stored)
        self._owners[reference] = owners
        self._tell("ADDED" if before is None else "MODIFIED", stored)
        return stored

    def _tell(self, kind: str, manifest: Manifest) -> None:
        for watcher in tuple(self._watchers):
            watcher(kind, copy.deepcopy(manifest))


def _without_server_fields(manifest: Manifest) -> Manifest:
    metadata = {field: value for field, value in manifest["metadata"].items() if field not in _SERVER_FIELDS}
    return copy.deepcopy({**{field: manifest[field] for field in manifest if field != "status"}, "metadata": metadata})


def _check_lock(manifest: Manifest, live: Manifest | None) -> None:
    expected = manifest["metadata"].get("resourceVersion")
    if not expected:
        return
    found = live["metadata"]["resourceVersion"] if live else "none"
    if found != expected:
        message = f"{_shown(names.ref(manifest))} is at version {found}, not {expected}: it was written in between"
        raise ApiError(message, status=409, reason="Conflict")


def _with_defaults(manifest: Manifest) -> Manifest:
    if manifest["kind"] == names.DEPLOYMENT.name and "replicas" not in manifest["spec"]:
        return {**manifest, "spec": {**manifest["spec"], "replicas": 1}}
    return manifest


def _validate(written: Manifest, live: Manifest | None) -> None:
    reference = names.ref(written)
    if reference.kind == names.SERVICE_KIND.name:
        try:
            InferenceService.parse({field: written[field] for field in written if field != "status"})
        except Terminal as invalid:
            raise _refusal(reference, invalid.message) from invalid
    if live is None:
        return
    paths: tuple[tuple[str, ...], ...] = _IMMUTABLE.get(reference.kind, ())
    if reference.kind == names.CONFIG_MAP.name and live.get("immutable"):
        paths = (("data",), ("immutable",))
    for path in paths:
        if _at(written, path) != _at(live, path):
            raise _refusal(reference, f"{'.'.join(path)}: field is immutable")


def _at(manifest: Manifest, path: tuple[str, ...]) -> Any:
    value: Any = manifest
    for field in path:
        value = (value or {}).get(field)
    return value


def _refusal(reference: Ref, message: str) -> ApiError:
    return ApiError(f"{_shown(reference)} is invalid: {message}", status=422, reason="Invalid")


def _owner_uids(manifest: Manifest) -> set[str]:
    return {reference["uid"] for reference in manifest["metadata"].get("ownerReferences") or ()}


def _shown(reference: Ref) -> str:
    return f"{reference.kind} {reference.namespace}/{reference.name}"
