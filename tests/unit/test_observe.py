"""Raw children, sorted."""

from typing import Any

import pytest

from openclaw_operator.config import Config
from openclaw_operator.decide import decide
from openclaw_operator.names import Manifest
from openclaw_operator.observe import Observed, observe, owns_replicas
from openclaw_operator.tiers import incarnation
from simulation import children, services

NOW = "2026-01-01T00:00:00Z"


def living(**spec: Any) -> list[Manifest]:
    decision = decide(services.service(services.having(**spec)), Observed(), Config(), now=NOW)
    return children.carried_out(decision, [])


def observed(*manifests: Manifest, uid: str = "uid-1") -> Observed:
    return observe(manifests, owner_uid=uid)


def test_children_are_sorted_into_slots_revisions_and_pods() -> None:
    everything = living(scaling={"minReplicas": 2})
    deployment = children.deployment_of(everything)
    others = [each for each in everything if each["kind"] != "Deployment"]
    seen = observed(*others, *children.rolled_out(deployment))
    assert len(seen.children) == 7
    assert [revision.number for revision in seen.revisions] == [1]
    assert seen.latest == seen.revisions[0]
    slot = seen.slots["a"]
    assert (slot.revision, slot.replicas, slot.owns_replicas) == (seen.revisions[0].hash, 2, True)
    assert [(pod.slot, pod.revision, pod.ready, pod.live) for pod in seen.pods] == [
        ("a", slot.revision, True, True)
    ] * 2
    assert (seen.serving, seen.ready(slot.revision), seen.ready("another")) == (2, 2, 0)


def test_nothing_is_observed_of_nothing() -> None:
    seen = observed()
    assert (seen.latest, seen.serving, dict(seen.slots), seen.pods) == (None, 0, {}, ())


def test_children_of_another_owner_are_not_ours_to_decide_about() -> None:
    assert dict(observed(*living(), uid="uid-of-a-later-service").children) == {}


def test_children_that_merely_carry_the_label_are_left_alone() -> None:
    stray = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "notes", "namespace": "vision", "labels": {"openclaw.io/service": "digits"}},
    }
    owned_otherwise = {
        **stray,
        "metadata": {**stray["metadata"], "ownerReferences": [{"kind": "Other", "name": "o", "uid": "uid-1"}]},
    }
    assert dict(observed(stray, owned_otherwise).children) == {}


def test_a_pod_that_is_leaving_serves_no_longer() -> None:
    deployment = children.deployment_of(living())
    leaving = children.pod(deployment, 0)
    leaving["metadata"]["deletionTimestamp"] = NOW
    seen = observed(deployment, leaving, children.pod(deployment, 1, ready=False))
    assert seen.serving == 0
    assert [pod.live for pod in seen.pods] == [False, True]


def test_pods_come_in_the_order_of_their_names_whatever_order_they_were_seen_in() -> None:
    deployment = children.deployment_of(living())
    pods = [children.pod(deployment, number) for number in (2, 0, 1)]
    assert [pod.name[-1] for pod in observed(*pods).pods] == ["0", "1", "2"]


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_pod_that_has_ended_is_not_live(phase: str) -> None:
    deployment = children.deployment_of(living())
    ended = children.pod(deployment, 0)
    ended["status"]["phase"] = phase
    assert observed(deployment, ended).live == ()


def test_what_kubernetes_said_of_an_earlier_template_is_no_news_about_this_one() -> None:
    deployment = children.deployment_of(living())
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"}
    deployment["status"] = {"observedGeneration": deployment["metadata"]["generation"], "conditions": [late]}
    assert observed(deployment).slots["a"].stalled == "late"
    deployment["metadata"]["generation"] += 1
    assert observed(deployment).slots["a"].stalled == ""


@pytest.mark.parametrize(
    ("condition", "stalled", "refused"),
    [
        (
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"},
            "late",
            "",
        ),
        ({"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "message": "busy"}, "", ""),
        ({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}, "", "quota"),
        ({"type": "ReplicaFailure", "status": "False", "reason": "x", "message": "quota"}, "", ""),
    ],
)
def test_kubernetes_own_complaints_are_kept(condition: Manifest, stalled: str, refused: str) -> None:
    deployment = children.deployment_of(living())
    deployment["status"] = {"observedGeneration": deployment["metadata"]["generation"], "conditions": [condition]}
    slot = observed(deployment).slots["a"]
    assert (slot.stalled, slot.refused) == (stalled, refused)


@pytest.mark.parametrize(
    ("managed_fields", "ours"),
    [
        (children.owned_by("openclaw"), True),
        (children.owned_by("kube-controller-manager", subresource="scale"), False),
        (children.owned_by("kubectl", subresource="scale"), False),
        (children.owned_by("openclaw", subresource="status"), False),
        ([{"manager": "openclaw", "fieldsV1": {"f:spec": {"f:template": {}}}}], False),
        ([{"manager": "openclaw"}], False),
        ([], False),
        ([*children.owned_by("kubectl"), *children.owned_by("openclaw")], True),
    ],
)
def test_the_number_of_replicas_is_ours_only_where_we_set_it_last(managed_fields: Any, ours: bool) -> None:
    assert owns_replicas(managed_fields) is ours


def test_what_a_pod_said_of_its_model_goes_with_it() -> None:
    everything = living(scaling={"minReplicas": 3})
    deployment = children.deployment_of(everything)
    pods = [children.pod(deployment, number, podIP=f"10.0.0.{number + 1}") for number in range(2)]
    nowhere = children.pod(deployment, 2)
    seen = observe([*pods, nowhere], owner_uid="uid-1", tiers={incarnation(pods[0]): "mapped"})
    assert [pod.tier for pod in seen.pods] == ["mapped", None, ""]
