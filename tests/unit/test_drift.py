"""What counts as a difference between what is wanted and what lives."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given

from openclaw_operator.config import Config
from openclaw_operator.decide import decide
from openclaw_operator.drift import drift, stamped
from openclaw_operator.observe import Observed
from simulation import services
from simulation.children import stored

Manifest = dict[str, Any]


def object_with(**spec: Any) -> Manifest:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "namespace": "y"}, "spec": spec}


SAME = {
    "fields that the API server added": ({"a": 1}, {"a": 1, "clusterIP": "10.0.0.1"}),
    "an object that others added to": ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}),
    "a quantity in its shortest form": ({"cpu": "1000m"}, {"cpu": "1"}),
    "a quantity that was a number": ({"cpu": 2}, {"cpu": "2"}),
    "an empty text that is dropped": ({"value": ""}, {}),
    "an empty object that is dropped": ({"emptyDir": {}}, {}),
    "an empty list that is dropped": ({"args": []}, {}),
    "a named item of somebody else": ({"env": [{"name": "A"}]}, {"env": [{"name": "A"}, {"name": "B"}]}),
    "named items in another order": (
        {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        {"env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]},
    ),
    "mounts of one volume at two places": (
        {"mounts": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}]},
        {"mounts": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}]},
    ),
}

DIFFERENT = {
    "another value": ({"a": 1}, {"a": 2}, "spec.a"),
    "a field that is gone": ({"a": {"b": 1}}, {"a": {}}, "spec.a.b"),
    "an object that is gone": ({"a": {"b": 1}}, {}, "spec.a"),
    "false that is missing": ({"a": False}, {}, "spec.a"),
    "a scalar in place of an object": ({"a": {"b": 1}}, {"a": 1}, "spec.a"),
    "a scalar in place of a list": ({"a": [1]}, {"a": 1}, "spec.a"),
    "an argument that was added": ({"args": ["serve"]}, {"args": ["serve", "--debug"]}, "spec.args"),
    "an argument that was removed": ({"args": ["serve", "-v"]}, {"args": ["serve"]}, "spec.args"),
    "an argument that was changed": ({"args": ["serve"]}, {"args": ["tune"]}, "spec.args[0]"),
    "a metric that was added": ({"metrics": [{"type": "R"}]}, {"metrics": [{"type": "R"}, {"type": "P"}]}, "spec.met"),
    "a named item that is gone": ({"env": [{"name": "A"}]}, {"env": [{"name": "B"}]}, "spec.env[0]"),
    "a named item that was changed": (
        {"env": [{"name": "A", "value": "1"}]},
        {"env": [{"name": "B"}, {"name": "A", "value": "2"}]},
        "spec.env[0].value",
    ),
    "a quantity of another value": ({"cpu": "1"}, {"cpu": "1001m"}, "spec.cpu"),
    "a text that only looks like a quantity": ({"a": "abc"}, {"a": "abd"}, "spec.a"),
}


@pytest.mark.parametrize(("desired", "live"), SAME.values(), ids=SAME.keys())
def test_these_are_no_differences(desired: Manifest, live: Manifest) -> None:
    assert drift(object_with(**desired), object_with(**live)) == []


@pytest.mark.parametrize(("desired", "live", "path"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_these_are_differences_and_their_path_is_named(desired: Manifest, live: Manifest, path: str) -> None:
    (found,) = drift(object_with(**desired), object_with(**live))
    assert found.startswith(path)


@given(spec=services.specs)
def test_what_was_stored_as_applied_has_not_drifted(spec: Manifest) -> None:
    decision = decide(services.service(spec), Observed(), Config(), now="2026-01-01T00:00:00Z")
    for child in (child for wave in (*decision.apply, decision.later) for child in wave):
        assert drift(child, stored(child, version=7)) == []


def test_a_field_that_is_wanted_no_longer_shows_in_the_stamp() -> None:
    before = stamped(object_with(a=1, b=2))
    after = stamped(object_with(a=1))
    assert drift(after, before) == ["metadata.annotations.openclaw.io/applied"]


def test_the_number_of_replicas_is_not_part_of_the_stamp() -> None:
    assert stamped(object_with(replicas=3))["metadata"] == stamped(object_with())["metadata"]


def test_stamping_changes_nothing_but_one_annotation() -> None:
    given_manifest = object_with(a=1)
    before = deepcopy(given_manifest)
    marked = stamped(given_manifest)
    assert given_manifest == before
    del marked["metadata"]["annotations"]["openclaw.io/applied"]
    assert marked == {**before, "metadata": {**before["metadata"], "annotations": {}}}
