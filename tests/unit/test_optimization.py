"""What the init containers of pods say, sorted; whatever else stands there is passed over."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator.api.v1alpha1 import InferenceServiceStatus
from openclaw_operator.names import Manifest
from openclaw_operator.optimization import MOST, is_optimizing, optimizations

FAST: Manifest = {
    "outcome": "Optimized", "nodeType": "Fast CPU, 2 threads", "mode": "auto", "form": "int8-static",
    "precision": "int8", "latencyPercent": 41, "accuracy": "top1 0.9990", "nodesBefore": 90, "nodesAfter": 30,
    "sizePercent": 26, "reason": "int8-static is kept: 0.41 of the default's latency", "cached": False,
}  # fmt: skip


def pod(message: Any = None, *, name: str = "optimize", code: int = 0, **state: Any) -> Manifest:
    said = message if isinstance(message, str) else json.dumps({"optimization": message})
    ending = {"terminated": {"exitCode": code, "message": said}}
    return {
        "metadata": {"name": "p"},
        "status": {"initContainerStatuses": [{"name": name, "state": state or ending, "restartCount": 0}]},
    }


def test_pods_to_which_the_same_happened_share_an_entry() -> None:
    other = {**FAST, "nodeType": "Another CPU, 4 threads", "latencyPercent": 70}
    pods = [pod(FAST), pod({**FAST, "cached": True}), pod({**FAST, "cached": True}), pod({**other, "cached": True})]
    entries = optimizations(pods)
    assert [(each["nodeType"], each["pods"], each["cached"]) for each in entries] == [
        ("Another CPU, 4 threads", 1, 1),
        ("Fast CPU, 2 threads", 3, 2),
    ]
    assert entries == optimizations(reversed(pods))


def test_pods_of_one_kind_of_nodes_that_fared_differently_are_told_apart() -> None:
    failed = {"outcome": "Failed", "nodeType": FAST["nodeType"], "mode": "auto", "reason": "it was killed"}
    entries = optimizations([pod(FAST), pod(failed)])
    assert [each["outcome"] for each in entries] == ["Failed", "Optimized"]


def test_no_more_is_shown_than_a_status_holds() -> None:
    entries = optimizations(pod({**FAST, "nodeType": f"CPU {number}"}) for number in range(50))
    assert len(entries) == MOST
    InferenceServiceStatus.model_validate({"model": {"optimization": entries}})


FOREIGN = {
    "nothing": "",
    "a server's failure": '{"reason": "ModelNotFound", "message": "no such file"}',
    "no JSON": "Traceback (most recent call last)",
    "another document": '{"optimization": []}',
    "a number": "5",
    "deep": "[" * 100_000,
    "an unknown outcome": json.dumps({"optimization": {**FAST, "outcome": "Great"}}),
    "an unknown field": json.dumps({"optimization": {**FAST, "surprise": 1}}),
    "a field of another type": json.dumps({"optimization": {**FAST, "latencyPercent": "41"}}),
    "too long": json.dumps({"optimization": {**FAST, "reason": "x" * 2000}}),
}


@pytest.mark.parametrize("message", FOREIGN.values(), ids=FOREIGN.keys())
def test_whatever_else_an_image_says_is_passed_over(message: str) -> None:
    assert optimizations([pod(message), pod(FAST)]) == optimizations([pod(FAST)])


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), lambda v: st.dictionaries(st.text(), v)))
def test_no_message_is_too_strange(message: Any) -> None:
    assert optimizations([pod(message)]) == []


@pytest.mark.parametrize("other", [pod(FAST, name="first"), pod(FAST, code=1), {"metadata": {}}, {"status": {}}])
def test_only_a_step_of_ours_that_ended_well_counts(other: Manifest) -> None:
    assert optimizations([other]) == []


@pytest.mark.parametrize(
    ("found", "busy"),
    [
        (pod(running={"startedAt": "2026-01-01T00:00:00Z"}), True),
        (pod(waiting={"reason": "PodInitializing"}), True),
        (pod(FAST), False),
        (pod(running={}, name="first"), False),
        ({"metadata": {"name": "p"}}, False),
    ],
)
def test_a_step_is_under_way_until_it_ended(found: Manifest, *, busy: bool) -> None:
    assert is_optimizing(found) is busy
