"""Whether a child differs from what is wanted of it, without asking the API server.

Fields that others add are not ours to judge; a field that we no longer want is found by the hash of what was last
applied.
"""

from collections.abc import Iterator
from typing import Any

from openclaw_operator import names
from openclaw_operator.api import quantity
from openclaw_operator.names import Manifest


def stamped(desired: Manifest) -> Manifest:
    """`desired` with the hash of itself among its annotations.

    The number of replicas is left out of the hash: it changes hands without anything having changed.
    """
    metadata = desired["metadata"]
    spec = {field: value for field, value in desired.get("spec", {}).items() if field != "replicas"}
    annotations = {
        **(metadata.get("annotations") or {}),
        names.APPLIED_ANNOTATION: names.digest({**desired, "spec": spec}),
    }
    return {**desired, "metadata": {**metadata, "annotations": annotations}}


def drift(desired: Manifest, live: Manifest) -> list[str]:
    """Paths of the fields of `desired` that `live` has not, or has with another value."""
    return list(_differences(desired, live, path=""))


def _differences(desired: Any, live: Any, *, path: str) -> Iterator[str]:
    if isinstance(desired, dict | list) and not desired and live is None:
        return
    if isinstance(desired, dict):
        yield from _in_object(desired, live, path=path)
    elif isinstance(desired, list):
        yield from _in_list(desired, live, path=path)
    elif not _same(desired, live):
        yield path


def _in_object(desired: Manifest, live: Any, *, path: str) -> Iterator[str]:
    if not isinstance(live, dict):
        yield path
        return
    for field, value in desired.items():
        other = live.get(field)
        # Nearly all of it is equal nearly always, and a comparison of whole values costs next to nothing.
        if value != other:
            yield from _differences(value, other, path=f"{path}.{field}" if path else field)


def _in_list(desired: list[Any], live: Any, *, path: str) -> Iterator[str]:
    aligned = _aligned(desired, live) if isinstance(live, list) else None
    if aligned is None:
        yield path
        return
    for index, (item, other) in enumerate(zip(desired, aligned, strict=True)):
        yield from _differences(item, other, path=f"{path}[{index}]")


def _aligned(desired: list[Any], live: list[Any]) -> list[Any] | None:
    """The items of `live` that stand for those of `desired`: by name where they have one, else by place.

    Others may add to a list of named items. Any other list belongs to one owner as a whole, so its length must agree;
    None where it does not.
    """
    by_name = {item["name"]: item for item in live if isinstance(item, dict) and "name" in item}
    named = all(isinstance(item, dict) and "name" in item for item in desired)
    if named and len(by_name) == len(live):
        return [by_name.get(item["name"]) for item in desired]
    return live if len(live) == len(desired) else None


def _same(desired: object, live: object) -> bool:
    if desired == live:
        return True
    # The API server drops empty strings of optional fields and writes quantities in their shortest form.
    return (desired == "" and live is None) or quantity.equal(desired, live)
