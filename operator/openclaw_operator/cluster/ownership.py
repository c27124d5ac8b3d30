"""Who owns which field of an object: the rules of server-side apply, for one object at a time.

https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from openclaw_operator.names import Manifest

Path = tuple[str, ...]

_IDENTITY = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}
SCALE = "/scale"


@dataclass(frozen=True, slots=True)
class Owners:
    """Fields by manager. A manager that wrote through the scale subresource carries its name as a suffix."""

    fields: Mapping[str, frozenset[Path]] = field(default_factory=lambda: MappingProxyType({}))

    def abandoned(self, manager: str, claimed: frozenset[Path]) -> frozenset[Path]:
        """Fields that `manager` owned alone and claims no longer: an apply removes them."""
        others = frozenset[Path]().union(*(paths for name, paths in self.fields.items() if name != manager))
        return self.fields.get(manager, frozenset()) - claimed - others

    def apply(self, manager: str, claimed: frozenset[Path], *, before: Manifest, after: Manifest) -> "Owners":
        """Owners once `manager` has applied `claimed` by force: where it changed a value, it owns it alone."""
        changed = {path for path in claimed if _value(before, path) != _value(after, path)}
        others = {
            name: frozenset(path for path in paths if not any(_overlap(path, each) for each in changed))
            for name, paths in self.fields.items()
            if name != manager
        }
        return _owners({**others, manager: claimed})

    def take(self, manager: str, path: Path) -> "Owners":
        """Owners once `manager` has changed one field."""
        others = {name: paths - {path} for name, paths in self.fields.items()}
        return _owners({**others, manager: others.get(manager, frozenset()) | {path}})


def leaves(manifest: Manifest) -> frozenset[Path]:
    """Paths of the fields that a manifest sets, without those that say which object it is."""
    return frozenset(path for path in _leaves(manifest, ()) if path not in _IDENTITY)


def pruned(manifest: Manifest, paths: Iterable[Path]) -> Manifest:
    """The manifest without the fields at `paths`, and without objects that this leaves empty."""
    result: Manifest = dict(manifest)
    for path in paths:
        result = _without(result, path)
    return result


def merged(base: Manifest, patch: Manifest) -> Manifest:
    """`patch` laid over `base`: objects field by field, anything else replaced."""
    result = dict(base)
    for name, value in patch.items():
        under = result.get(name)
        result[name] = merged(under, value) if isinstance(value, dict) and isinstance(under, dict) else value
    return result


def to_managed_fields(owners: Owners, *, api_version: str) -> list[Manifest]:
    """`metadata.managedFields` as an API server shows them."""
    entries = []
    for name in sorted(owners.fields):
        manager, scale, _ = name.partition(SCALE)
        entry: Manifest = {
            "manager": manager,
            "operation": "Update" if scale else "Apply",
            "apiVersion": api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": _nested(owners.fields[name]),
        }
        entries.append({**entry, "subresource": "scale"} if scale else entry)
    return entries


def _owners(fields: Mapping[str, frozenset[Path]]) -> Owners:
    return Owners(MappingProxyType({name: paths for name, paths in fields.items() if paths}))


def _leaves(value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, (*path, name))
    elif path:
        yield path


def _overlap(one: Path, other: Path) -> bool:
    """Whether one of the fields is, or lies within, the other."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _value(manifest: Any, path: Path) -> Any:
    for name in path:
        if not isinstance(manifest, Mapping) or name not in manifest:
            return None
        manifest = manifest[name]
    return manifest


def _without(manifest: Manifest, path: Path) -> Manifest:
    name, *rest = path
    if name not in manifest:
        return manifest
    result = dict(manifest)
    inner = _without(result[name], tuple(rest)) if rest and isinstance(result[name], dict) else {}
    if rest and inner:
        result[name] = inner
    elif not rest or isinstance(result[name], dict):
        del result[name]
    return result


def _nested(paths: frozenset[Path]) -> Manifest:
    tree: Manifest = {}
    for path in sorted(paths):
        node = tree
        for name in path:
            node = node.setdefault(f"f:{name}", {})
    return tree
