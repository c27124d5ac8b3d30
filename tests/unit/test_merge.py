"""`podTemplate` over the rendered template."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator.render.merge import merged

_scalars = st.booleans() | st.integers() | st.text(max_size=3)
_objects = st.recursive(
    st.dictionaries(st.sampled_from("abc"), _scalars, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), _scalars | inner | st.lists(inner, max_size=2), max_size=3),
    max_leaves=6,
)
_names = st.sampled_from(["server", "side", "other"])
_containers = st.lists(
    st.fixed_dictionaries({"name": _names}, optional={"image": st.text(max_size=2), "env": st.just([])}),
    max_size=3,
    unique_by=lambda item: item["name"],
)
pods = st.builds(lambda rest, containers: {**rest, "containers": containers}, _objects, _containers)
patches = st.builds(
    lambda rest, removed, containers: {**rest, **dict.fromkeys(removed), "containers": containers},
    _objects,
    st.lists(st.sampled_from("abc"), max_size=2),
    _containers,
)


@given(base=pods)
def test_nothing_laid_over_an_object_leaves_it_as_it_is(base: dict[str, Any]) -> None:
    assert merged(base, {}) == base


@given(base=pods)
def test_an_object_laid_over_itself_leaves_it_as_it_is(base: dict[str, Any]) -> None:
    assert merged(base, base) == base


@given(base=pods, patch=patches)
def test_what_was_laid_over_once_changes_nothing_the_second_time(base: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merged(base, patch)
    assert merged(once, patch) == once


@given(base=pods, patch=patches)
def test_neither_side_is_changed(base: dict[str, Any], patch: dict[str, Any]) -> None:
    before = deepcopy((base, patch))
    merged(base, patch)
    assert (base, patch) == before


@given(base=pods, patch=patches)
def test_every_scalar_of_the_patch_arrives(base: dict[str, Any], patch: dict[str, Any]) -> None:
    result = merged(base, patch)
    for field, value in patch.items():
        if value is None:
            assert field not in result
        elif not isinstance(value, dict | list):
            assert result[field] == value


@given(base=pods, patch=patches)
def test_containers_are_merged_by_name_and_keep_their_order(base: dict[str, Any], patch: dict[str, Any]) -> None:
    named = [item["name"] for item in merged(base, patch)["containers"]]
    known = [item["name"] for item in base["containers"]]
    assert named == known + [item["name"] for item in patch["containers"] if item["name"] not in known]


SERVER = {"name": "server", "image": "a", "env": [{"name": "A", "value": "1"}], "args": ["serve"]}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"image": "b"}, {**SERVER, "image": "b"}),
        ({"env": [{"name": "B", "value": "2"}]}, {**SERVER, "env": [*SERVER["env"], {"name": "B", "value": "2"}]}),
        ({"env": [{"name": "A", "value": "2"}]}, {**SERVER, "env": [{"name": "A", "value": "2"}]}),
        (
            {"env": [{"name": "A", "value": None, "valueFrom": {}}]},
            {**SERVER, "env": [{"name": "A", "valueFrom": {}}]},
        ),
        ({"env": None}, {key: value for key, value in SERVER.items() if key != "env"}),
        ({"args": ["other"]}, {**SERVER, "args": ["other"]}),
        ({"lifecycle": {"preStop": None, "postStart": {}}}, {**SERVER, "lifecycle": {"postStart": {}}}),
    ],
)
def test_a_container_of_the_same_name_is_merged_field_by_field(patch: dict[str, Any], expected: Any) -> None:
    result = merged({"containers": [SERVER]}, {"containers": [{"name": "server", **patch}]})
    assert result == {"containers": [expected]}


@pytest.mark.parametrize("strange", ["text", {"name": {"a": 1}}, {"image": "b"}, None, 3])
def test_an_item_without_a_usable_name_is_left_for_the_api_server_to_refuse(strange: Any) -> None:
    assert merged({"containers": [SERVER]}, {"containers": [strange]}) == {"containers": [SERVER, strange]}


def test_mounts_are_merged_by_path_and_ports_by_number() -> None:
    base = {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}], "ports": [{"name": "http", "containerPort": 8080}]}
    patch = {
        "volumeMounts": [{"name": "disk", "mountPath": "/tmp"}, {"name": "tmp", "mountPath": "/elsewhere"}],
        "ports": [{"name": "web", "containerPort": 8080}, {"containerPort": 9090}],
    }
    assert merged(base, patch) == {
        "volumeMounts": [{"name": "disk", "mountPath": "/tmp"}, {"name": "tmp", "mountPath": "/elsewhere"}],
        "ports": [{"name": "web", "containerPort": 8080}, {"containerPort": 9090}],
    }
