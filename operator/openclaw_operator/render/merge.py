"""`podTemplate` laid over the rendered template.

Objects are merged field by field; lists whose items have a name are merged by it, as Kubernetes' strategic merge
does; any other list is replaced; null removes a field.
"""

from collections.abc import Mapping
from typing import Any

_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
}


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A new object: `patch` over `base`; neither is changed."""
    result = dict(base)
    for field, value in patch.items():
        if value is None:
            result.pop(field, None)
        elif isinstance(value, Mapping):
            under = result.get(field)
            result[field] = merged(under if isinstance(under, Mapping) else {}, value)
        elif field in _KEYS and isinstance(value, list) and isinstance(result.get(field), list):
            result[field] = _merged_list(result[field], value, key=_KEYS[field])
        else:
            result[field] = value
    return result


def _merged_list(base: list[Any], patch: list[Any], *, key: str) -> list[Any]:
    known = {name for item in base if (name := _name(item, key)) is not None}
    changes = {name: item for item in patch if (name := _name(item, key)) in known}
    kept = [merged(item, changes[name]) if (name := _name(item, key)) in changes else item for item in base]
    return kept + [item for item in patch if _name(item, key) not in known and item not in base]


def _name(item: Any, key: str) -> str | int | None:
    """What the item is merged by; None where it has nothing fit for it, which is for the API server to refuse."""
    name = item.get(key) if isinstance(item, Mapping) else None
    return name if isinstance(name, str | int) else None
