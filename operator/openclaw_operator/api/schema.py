"""Pydantic models -> the structural OpenAPI schema of a CustomResourceDefinition.

Rules of structural schemas: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema

Everything that is not listed here is refused: a keyword that the API server drops in silence would be a rule that
nobody enforces.
"""

from typing import Any

from pydantic import BaseModel

from openclaw_operator.api import quantity

Schema = dict[str, Any]

_KEPT = {
    "type", "description", "format", "pattern", "enum", "required", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "minProperties", "maxProperties", "x-kubernetes-validations",
}  # fmt: skip
_HANDLED = {
    "properties",
    "items",
    "additionalProperties",
    "default",
    "const",
    "anyOf",
    "allOf",
    "$ref",
    "mapKeys",
}
_DROPPED = {"title", "propertyNames", "quantity", "intOrPercent", "preserve", "reserved"}


class UnsupportedSchemaError(ValueError):
    """A model uses something that a structural schema cannot say."""


def structural(model: type[BaseModel]) -> Schema:
    """The structural schema of `model`, every reference inlined.

    Raises:
        UnsupportedSchemaError: the model uses a form that has no structural counterpart; the message has its path.
    """
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _node(raw, path=model.__name__, definitions=raw.get("$defs", {}))


def _node(raw: Schema, *, path: str, definitions: Schema) -> Schema:
    raw = _inlined({key: value for key, value in raw.items() if key != "$defs"}, path=path, definitions=definitions)
    special = _special(raw)
    if special is not None:
        return special
    unknown = set(raw) - _KEPT - _HANDLED - _DROPPED
    if unknown:
        raise UnsupportedSchemaError(f"{path}: {', '.join(sorted(unknown))} has no structural counterpart")
    schema: Schema = {key: value for key, value in raw.items() if key in _KEPT}
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    if "const" in raw:
        schema["enum"] = [raw["const"]]
    if raw.get("default") not in (None, [], {}):
        schema["default"] = raw["default"]
    if schema.get("type") == "array":
        schema |= _list_type(raw)
    if "type" not in schema:
        raise UnsupportedSchemaError(f"{path}: has no type")
    return schema | _children(raw, path=path, definitions=definitions)


def _children(raw: Schema, *, path: str, definitions: Schema) -> Schema:
    children: Schema = {}
    if "properties" in raw:
        children["properties"] = {
            name: _node(child, path=f"{path}.{name}", definitions=definitions)
            for name, child in raw["properties"].items()
        }
    elif isinstance(raw.get("additionalProperties"), dict):
        children["additionalProperties"] = _node(
            raw["additionalProperties"], path=f"{path}[*]", definitions=definitions
        )
    if "items" in raw:
        children["items"] = _node(raw["items"], path=f"{path}[]", definitions=definitions)
    return children


def _list_type(raw: Schema) -> Schema:
    """How server-side apply merges a list: by key where its items have one, else as a whole."""
    if "mapKeys" in raw:
        return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": raw["mapKeys"]}
    return {"x-kubernetes-list-type": "atomic"}


def _inlined(raw: Schema, *, path: str, definitions: Schema) -> Schema:
    """`raw` with its reference, and the optional part of `X | None`, resolved; what stands beside them wins."""
    if "$ref" in raw:
        target = definitions[raw["$ref"].removeprefix("#/$defs/")]
        beside = {key: value for key, value in raw.items() if key != "$ref"}
        return _inlined({**target, **beside}, path=path, definitions=definitions)
    if "anyOf" in raw and not {"quantity", "intOrPercent"} & set(raw):
        present = [option for option in raw["anyOf"] if option.get("type") != "null"]
        if len(present) != 1:
            raise UnsupportedSchemaError(f"{path}: a union; write optional siblings and a rule instead")
        beside = {key: value for key, value in raw.items() if key != "anyOf"}
        return _inlined({**present[0], **beside}, path=path, definitions=definitions)
    return raw


def _special(raw: Schema) -> Schema | None:
    """Nodes whose form Kubernetes has a keyword for."""
    described = {"description": raw["description"]} if "description" in raw else {}
    if "quantity" in raw:
        return {**described, "x-kubernetes-int-or-string": True, "pattern": quantity.PATTERN, "maxLength": 32}
    if "intOrPercent" in raw:
        return {**described, "x-kubernetes-int-or-string": True}
    if "preserve" in raw:
        return {**described, "type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if "reserved" in raw:
        return _reserved(raw["reserved"][1], described)
    return None


def _reserved(kind: str, described: Schema) -> Schema:
    """A place for a field that a rule refuses: the rule can only be evaluated where the field is stored."""
    if kind == "object":
        return {**described, "type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if kind == "array":
        anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        return {
            **described,
            "type": "array",
            "maxItems": 64,
            "items": anything,
            "x-kubernetes-list-type": "atomic",
        }
    return {**described, "type": kind}
