"""What every model of the custom resource shares: camelCase names, rules in CEL, reserved fields."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.alias_generators import to_camel


@dataclass(frozen=True, slots=True)
class Rule:
    """One sentence of validation, said twice: to the API server in CEL, and here in Python.

    The two must agree; a test feeds the same objects to both and compares the verdicts.

    Attributes:
        cel: The expression as the API server evaluates it, with `self` the object that the rule stands on.
        message: What a user reads when the rule is broken: what is wrong, and what to write instead.
        holds: The same expression over the validated model.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Reserved:
    """Marks a field that has its name and place, and is refused until its function exists.

    Attributes:
        instead: What to write instead, or what to do without it.
        kind: The JSON type under which the API server stores it while it decides to refuse it.
    """

    instead: str
    kind: str = "object"


def reserved(instead: str, *, kind: str = "object") -> Any:
    """A field that has its place and is refused with a sentence; `instead` says what to write."""
    return Field(
        default=None,
        description="Not supported by this version.",
        json_schema_extra={"reserved": [instead, kind]},
    )


ReservedField = Annotated[Any, "reserved"]


class ApiModel(BaseModel):
    """A node of the custom resource.

    Unknown fields are refused, never dropped: a misspelt limit that is silently ignored is an outage later. Types
    are taken at their word, as the API server takes them: "3" is no number and "yes" is no boolean.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core))
        if rules := cls.all_rules():
            schema["x-kubernetes-validations"] = [{"rule": rule.cel, "message": rule.message} for rule in rules]
        return schema

    @classmethod
    def reserved_fields(cls) -> dict[str, Reserved]:
        """The reserved fields of this node, by their name in the custom resource."""
        found = {}
        for name, field in cls.model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and isinstance(mark := extra.get("reserved"), list):
                found[field.alias or name] = Reserved(str(mark[0]), str(mark[1]))
        return found

    @classmethod
    @cache
    def all_rules(cls) -> tuple[Rule, ...]:
        """The rules written on the class, and one for each reserved field."""
        refusals = tuple(_refusal(alias, to_field(cls, alias), mark) for alias, mark in cls.reserved_fields().items())
        return cls.rules + refusals

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        broken = [rule.message for rule in self.all_rules() if not rule.holds(self)]
        if broken:
            raise ValueError("; ".join(broken))
        return self


def _refusal(alias: str, name: str, mark: Reserved) -> Rule:
    return Rule(
        cel=f"!has(self.{alias})",
        message=f"{alias} is not supported by this version of OpenClaw: {mark.instead}",
        holds=lambda node: getattr(node, name) is None,
    )


def to_field(model: type[BaseModel], alias: str) -> str:
    """The Python name of the field that the custom resource calls `alias`."""
    return next(name for name, field in model.model_fields.items() if (field.alias or name) == alias)


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text matches; alone, `$` would let a line feed follow."""
    return re.fullmatch(pattern, text) is not None


def explain(invalid: ValidationError) -> str:
    """The errors as sentences: `spec.scaling.minReplicas: 0: Input should be ...`."""
    lines = []
    for error in invalid.errors(include_url=False, include_context=False):
        path = ".".join(str(part) for part in error["loc"])
        value = error.get("input")
        shown = f": {value!r}" if isinstance(value, str | int | float | bool) else ""
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = "unknown field: check the spelling or remove it"
        elif error["type"] == "model_type":
            message = "must be an object with fields"
        lines.append(f"{path}{shown}: {message}" if path else message)
    return "; ".join(lines)
