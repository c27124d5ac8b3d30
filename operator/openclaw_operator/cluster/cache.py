"""What was last seen of every service and child: fed by watches, by listings and by the answers to our own writes."""

from collections import defaultdict
from collections.abc import Iterable

from openclaw_operator import names
from openclaw_operator.cluster.slim import slim
from openclaw_operator.names import Key, Manifest, Ref

_DEAD = 8192
"""Deleted objects remembered; far more than are deleted while a listing or an answer is on its way."""


class Cache:
    """Objects by service. Older versions never replace newer ones, in whatever order they arrive.

    What was deleted stays so: a listing asked for before, or an answer that is late, would bring it back, and nothing
    would ever take it away again.
    """

    def __init__(self) -> None:
        self._services: dict[Key, Manifest] = {}
        self._children: dict[Key, dict[Ref, Manifest]] = defaultdict(dict)
        self._dead: dict[str, None] = {}

    def service(self, key: Key) -> Manifest | None:
        return self._services.get(key)

    def services(self) -> list[Key]:
        return list(self._services)

    def children(self, key: Key) -> list[Manifest]:
        return list(self._children.get(key, {}).values())

    def put(self, manifest: Manifest) -> Key | None:
        """Keeps what matters of the object. Returns the service that it is news for; None where it is for none."""
        manifest = slim(manifest)
        key = names.key_of(manifest)
        if key is None:
            return None
        before = self._seen(key, manifest)
        if manifest["metadata"].get("uid") in self._dead or (before is not None and not _newer(manifest, before)):
            return None
        if manifest["kind"] == names.SERVICE_KIND.name:
            self._services[key] = manifest
        else:
            self._children[key][names.ref(manifest)] = manifest
        return None if before is not None and _alike(manifest, before) else key

    def remove(self, manifest: Manifest) -> Key | None:
        """Takes note that the object was deleted. Returns the service that it is news for."""
        if uid := manifest["metadata"].get("uid"):
            self._dead[uid] = None
            if len(self._dead) > _DEAD:
                del self._dead[next(iter(self._dead))]
        return self.forget(manifest)

    def forget(self, manifest: Manifest) -> Key | None:
        """Drops the object, unless another one took its name since. Returns the service it belonged to."""
        key = names.key_of(manifest)
        if key is None:
            return None
        before = self._seen(key, manifest)
        if before is None or before["metadata"].get("uid") != manifest["metadata"].get("uid"):
            return None
        if manifest["kind"] == names.SERVICE_KIND.name:
            del self._services[key]
        else:
            del self._children[key][names.ref(manifest)]
        if key not in self._services and not self._children.get(key):
            self._children.pop(key, None)
        return key

    def replace(self, kind: str, manifests: Iterable[Manifest], *, seen: frozenset[tuple[Ref, str]]) -> set[Key]:
        """Takes a listing as the truth for objects known before it was asked for.

        Args:
            kind: Kind that was listed.
            manifests: The listing.
            seen: References and UIDs that were cached when the listing was asked for; what came later may be missing
                from it and still exist.

        Returns:
            The services that something was news for.
        """
        listed = list(manifests)
        alive = {(names.ref(manifest), manifest["metadata"].get("uid", "")) for manifest in listed}
        changed = {key for manifest in listed if (key := self.put(manifest))}
        for reference, uid in seen - alive:
            if reference.kind != kind:
                continue
            ghost = self._find(reference)
            if ghost is not None and ghost["metadata"].get("uid", "") == uid and (key := self.remove(ghost)):
                changed.add(key)
        return changed

    def seen(self, kind: str) -> frozenset[tuple[Ref, str]]:
        """References and UIDs of all cached objects of a kind."""
        everything = (
            self._services.values()
            if kind == names.SERVICE_KIND.name
            else (child for children in self._children.values() for child in children.values())
        )
        return frozenset(
            (names.ref(each), each["metadata"].get("uid", "")) for each in everything if each["kind"] == kind
        )

    def _seen(self, key: Key, manifest: Manifest) -> Manifest | None:
        if manifest["kind"] == names.SERVICE_KIND.name:
            return self._services.get(key)
        return self._children.get(key, {}).get(names.ref(manifest))

    def _find(self, reference: Ref) -> Manifest | None:
        if reference.kind == names.SERVICE_KIND.name:
            return self._services.get(Key(reference.namespace, reference.name))
        for children in self._children.values():
            if reference in children:
                return children[reference]
        return None


def _alike(manifest: Manifest, before: Manifest) -> bool:
    """Whether two versions of an object differ in nothing but the number of their version."""
    return _unversioned(manifest) == _unversioned(before)


def _unversioned(manifest: Manifest) -> Manifest:
    metadata = {field: value for field, value in manifest["metadata"].items() if field != "resourceVersion"}
    return {**manifest, "metadata": metadata}


def _newer(manifest: Manifest, before: Manifest) -> bool:
    """Whether `manifest` was written after `before`.

    Resource versions of one object are numbers that only grow: Kubernetes promises it since 1.35
    (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions), and every release before did it.
    """
    metadata, earlier = manifest["metadata"], before["metadata"]
    number, known = int(metadata.get("resourceVersion") or 0), int(earlier.get("resourceVersion") or 0)
    if metadata.get("uid") == earlier.get("uid"):
        return number > known
    # Two objects that had the name one after the other, maybe within the second that a timestamp counts.
    return (str(metadata.get("creationTimestamp", "")), number) > (str(earlier.get("creationTimestamp", "")), known)
