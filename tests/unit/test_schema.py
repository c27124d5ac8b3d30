"""The generated schema says everything that the models say, in words that an API server enforces."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from click.testing import CliRunner
from pydantic import Field
from testcluster.paths import REPOSITORY

from openclaw_operator.api import crd
from openclaw_operator.api.base import ApiModel
from openclaw_operator.api.schema import UnsupportedSchemaError, structural

Schema = dict[str, Any]

FORBIDDEN = {
    "$ref", "$defs", "$schema", "definitions", "anyOf", "oneOf", "allOf", "not", "const", "title", "propertyNames",
    "patternProperties", "dependencies", "deprecated", "discriminator", "id", "readOnly", "writeOnly", "uniqueItems",
}  # fmt: skip


def version() -> Schema:
    (only,) = crd.definition()["spec"]["versions"]
    return dict(only)


def root() -> Schema:
    return dict(version()["schema"]["openAPIV3Schema"])


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for keyword, mark in (("items", "[]"), ("additionalProperties", "[*]")):
        if keyword in schema:
            yield from nodes(schema[keyword], path + mark)


def test_no_node_uses_a_keyword_that_a_structural_schema_may_not() -> None:
    assert {path: FORBIDDEN & set(node) for path, node in nodes(root()) if FORBIDDEN & set(node)} == {}


def test_every_node_has_a_type() -> None:
    untyped = [
        path for path, node in nodes(root()) if "type" not in node and not node.get("x-kubernetes-int-or-string")
    ]
    assert untyped == []


def test_every_field_of_a_user_is_described() -> None:
    bare = [
        path
        for path, node in nodes(root())
        if path.startswith((".spec", ".status"))
        and not path.endswith(("[]", "[*]"))
        and not node.get("description", "").strip()
    ]
    assert bare == []


def test_every_object_knows_its_fields_or_says_that_it_does_not() -> None:
    loose = [
        path
        for path, node in nodes(root())
        if node.get("type") == "object"
        and not node.keys() & {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"}
        and path != ".metadata"
    ]
    assert loose == []


def test_every_list_says_how_it_is_merged() -> None:
    for path, node in nodes(root()):
        if node.get("type") != "array":
            continue
        assert node["x-kubernetes-list-type"] in {"map", "atomic"}, path
        for key in node.get("x-kubernetes-list-map-keys", []):
            assert key in node["items"]["required"], path


def test_every_rule_has_a_sentence() -> None:
    rules = [(path, rule) for path, node in nodes(root()) for rule in node.get("x-kubernetes-validations", [])]
    assert len(rules) > 20
    for path, rule in rules:
        assert set(rule) == {"rule", "message"}, path
        assert len(rule["message"]) > 20, path


def test_lists_and_texts_of_the_spec_are_bounded() -> None:
    """The API server refuses rules whose cost it cannot bound."""
    spec = root()["properties"]["spec"]
    unbounded = [path for path, node in nodes(spec) if node.get("type") == "array" and "maxItems" not in node]
    assert unbounded == []


def test_the_definition_is_small_enough_for_an_annotation_and_for_people() -> None:
    assert len(crd.render(crd.definition()).encode()) < 200_000


def test_the_definition_has_what_kubectl_shows_and_scales() -> None:
    names = crd.definition()["spec"]["names"]
    assert names["shortNames"] == ["claw"]
    assert "all" in names["categories"]
    columns = [column["name"] for column in version()["additionalPrinterColumns"] if not column.get("priority")]
    assert columns == ["Ready", "Reason", "URL", "Replicas", "Traffic", "Model", "Age"]
    assert set(version()["subresources"]) == {"status", "scale"}
    for path in version()["subresources"]["scale"].values():
        node = root()
        for name in path.split(".")[1:]:
            node = node["properties"][name]
        assert node["type"] in {"integer", "string"}


def test_the_spec_is_required_and_has_no_default_but_harmless_ones() -> None:
    """A default that a later version changes would change what every stored object means."""
    assert root()["required"] == ["spec"]
    defaults = {path: node["default"] for path, node in nodes(root()["properties"]["spec"]) if "default" in node}
    assert defaults == {
        ".model.format": "onnx",
        ".model.warmup.requests": 1,
        ".runtime.optimize.mode": "off",
        ".suspend": False,
    }


def test_the_generated_files_are_up_to_date() -> None:
    result = CliRunner().invoke(crd.main, ["--check", "--root", str(REPOSITORY)])
    assert (result.exit_code, result.output) == (0, "")


def test_a_file_that_differs_is_named_and_fails_the_check(tmp_path: Any) -> None:
    written = CliRunner().invoke(crd.main, ["--root", str(tmp_path)])
    assert written.exit_code == 0
    assert CliRunner().invoke(crd.main, ["--check", "--root", str(tmp_path)]).exit_code == 0
    changed = tmp_path / "crds/openclaw.io_inferenceservices.yaml"
    changed.write_text(changed.read_text() + "\n")
    checked = CliRunner().invoke(crd.main, ["--check", "--root", str(tmp_path)])
    assert (checked.exit_code, checked.output) == (1, f"{changed} is out of date: run `make crds`\n")


def test_the_charts_template_is_the_definition_behind_two_switches() -> None:
    keep = "  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n"
    before, switch, after = crd.chart_template(crd.definition()).partition(keep)
    assert switch
    body = (before + after).removeprefix("{{- if .Values.crds.enabled }}\n").removesuffix("{{- end }}\n")
    assert body == crd.render(crd.definition())


class Union(ApiModel):
    either: int | str


class Loose(ApiModel):
    anything: Any


class Pair(ApiModel):
    pair: tuple[int, str]


class Multiple(ApiModel):
    steps: Annotated[int, Field(multiple_of=5)]


class Nested(ApiModel):
    inner: list[Union]


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (Union, "Union.either: a union; write optional siblings and a rule instead"),
        (Loose, "Loose.anything: has no type"),
        (Pair, "Pair.pair: prefixItems has no structural counterpart"),
        (Multiple, "Multiple.steps: multipleOf has no structural counterpart"),
        (Nested, "Nested.inner[].either: a union"),
    ],
)
def test_a_form_that_the_api_server_would_drop_in_silence_is_refused(model: type[ApiModel], sentence: str) -> None:
    with pytest.raises(UnsupportedSchemaError) as refused:
        structural(model)
    assert sentence in str(refused.value)


class Leaf(ApiModel):
    """A leaf."""

    only: Literal["one"] = "one"
    """One."""


class Tree(ApiModel):
    """A tree."""

    left: Leaf
    """The left
    one."""
    right: Leaf | None = None
    """The right one."""


def test_references_are_inlined_and_optional_parts_resolved() -> None:
    leaf = {
        "type": "object",
        "properties": {"only": {"type": "string", "description": "One.", "enum": ["one"], "default": "one"}},
    }
    assert structural(Tree) == {
        "type": "object",
        "description": "A tree.",
        "required": ["left"],
        "properties": {
            "left": {**leaf, "description": "The left one."},
            "right": {**leaf, "description": "The right one."},
        },
    }
