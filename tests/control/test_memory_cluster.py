"""The cluster in memory keeps the rules of an API server that the operator and the supervisor build on."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator import names
from openclaw_operator.cluster.memory import MemoryCluster
from openclaw_operator.cluster.ownership import Owners, leaves, merged, pruned
from openclaw_operator.cluster.port import ApiError
from openclaw_operator.decide import Event
from openclaw_operator.names import Key, Manifest, Ref
from openclaw_operator.observe import owns_replicas

NOW = "2026-01-01T00:00:00Z"
Watched = list[tuple[str, Manifest]]


@pytest.fixture
def cluster() -> MemoryCluster:
    return MemoryCluster(clock=lambda: NOW, new_uid=_counter())


def _counter() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"uid-{next(numbers)}"


def service(name: str = "digits", **spec: Any) -> Manifest:
    return {
        "apiVersion": "openclaw.io/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"model": {"uri": "s3://models/digits.onnx"}, **spec},
    }


def deployment(*, replicas: int | None = None, owner: str = "", **template: Any) -> Manifest:
    spec: Manifest = {"selector": {"matchLabels": {"app": "digits"}}, "template": {"spec": template}}
    metadata: Manifest = {"name": "digits-a", "namespace": "default"}
    if owner:
        metadata["ownerReferences"] = [{"kind": "InferenceService", "name": "digits", "uid": owner, "controller": True}]
    if replicas is not None:
        spec["replicas"] = replicas
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def config_map(data: str) -> Manifest:
    metadata = {"name": "digits-1", "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, "data": {"file": data}}


def pod(name: str, *, owner: str) -> Manifest:
    references = [{"kind": "Deployment", "name": "digits-a", "uid": owner, "controller": True}]
    metadata = {"name": name, "namespace": "default", "ownerReferences": references}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}}


DEPLOYMENT = Ref("Deployment", "default", "digits-a")


async def test_an_object_gets_an_identity_when_it_is_created(cluster: MemoryCluster) -> None:
    created = await cluster.apply(service())
    metadata = created["metadata"]
    assert (metadata["uid"], metadata["generation"], metadata["creationTimestamp"]) == ("uid-1", 1, NOW)
    assert metadata["resourceVersion"] == "1"


async def test_generation_follows_the_spec_alone(cluster: MemoryCluster) -> None:
    told = await cluster.update_status(await cluster.apply(service()), {"conditions": []})
    labelled = service()
    labelled["metadata"]["labels"] = {"team": "a"}
    relabelled = await cluster.apply(labelled)
    changed = await cluster.apply({**labelled, "spec": {"model": {"uri": "s3://models/other.onnx"}}})
    assert [each["metadata"]["generation"] for each in (told, relabelled, changed)] == [1, 1, 2]
    assert changed["status"] == {"conditions": []}


async def test_a_write_that_changes_nothing_is_no_new_version_and_no_event(cluster: MemoryCluster) -> None:
    first = await cluster.apply(deployment(replicas=1))
    seen: Watched = []
    cluster.subscribe(lambda event, manifest: seen.append((event, manifest)))
    again = await cluster.apply(deployment(replicas=1))
    assert again == first
    assert seen == []


async def test_watchers_hear_every_change_in_order(cluster: MemoryCluster) -> None:
    seen: Watched = []
    unsubscribe = cluster.subscribe(lambda event, manifest: seen.append((event, manifest)))
    created = await cluster.apply(service())
    await cluster.update_status(created, {"url": "http://x"})
    await cluster.delete(created)
    unsubscribe()
    await cluster.apply(service())
    assert [event for event, _ in seen] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(manifest["metadata"]["resourceVersion"]) for _, manifest in seen]
    assert versions == sorted(set(versions))


async def test_what_was_handed_out_cannot_change_what_is_kept(cluster: MemoryCluster) -> None:
    created = await cluster.apply(service())
    created["spec"]["model"]["uri"] = "s3://models/hacked.onnx"
    kept = cluster.get(names.ref(created))
    assert kept is not None
    assert kept["spec"]["model"]["uri"] == "s3://models/digits.onnx"


async def test_a_field_that_is_applied_no_more_is_removed_if_nobody_else_owns_it(cluster: MemoryCluster) -> None:
    await cluster.apply(deployment(image="a", args=["x"]))
    await cluster.apply(deployment(image="a"), manager="somebody")
    kept = await cluster.apply(deployment())
    assert kept["spec"]["template"]["spec"] == {"image": "a"}


async def test_replicas_left_out_are_one(cluster: MemoryCluster) -> None:
    created = await cluster.apply(deployment())
    await cluster.apply(deployment(replicas=3))
    left_out = await cluster.apply(deployment())
    assert (created["spec"]["replicas"], left_out["spec"]["replicas"]) == (1, 1)


async def test_scaling_takes_the_number_of_replicas_over(cluster: MemoryCluster) -> None:
    mine = await cluster.apply(deployment(replicas=1))
    scaled = cluster.scale(DEPLOYMENT, 4, manager="kubectl")
    left_out = await cluster.apply(deployment())
    assert owns_replicas(mine["metadata"]["managedFields"])
    assert not owns_replicas(scaled["metadata"]["managedFields"])
    assert (scaled["spec"]["replicas"], scaled["metadata"]["generation"]) == (4, 2)
    assert left_out["spec"]["replicas"] == 4


async def test_scaling_to_the_same_number_takes_nothing_over(cluster: MemoryCluster) -> None:
    await cluster.apply(deployment(replicas=2))
    assert owns_replicas(cluster.scale(DEPLOYMENT, 2, manager="kubectl")["metadata"]["managedFields"])


async def test_a_forced_apply_takes_a_field_back(cluster: MemoryCluster) -> None:
    await cluster.apply(deployment(replicas=1))
    cluster.scale(DEPLOYMENT, 4, manager="kubectl")
    forced = await cluster.apply(deployment(replicas=2))
    assert forced["spec"]["replicas"] == 2
    assert owns_replicas(forced["metadata"]["managedFields"])
    assert [entry["manager"] for entry in forced["metadata"]["managedFields"]] == ["openclaw"]


async def test_a_negative_number_of_replicas_is_refused(cluster: MemoryCluster) -> None:
    await cluster.apply(deployment(replicas=1))
    with pytest.raises(ApiError, match=r"spec.replicas: -1") as refused:
        cluster.scale(DEPLOYMENT, -1, manager="kubectl")
    assert refused.value.status == 422


async def test_an_apply_to_another_version_is_a_conflict(cluster: MemoryCluster) -> None:
    created = await cluster.apply(deployment(replicas=1))
    cluster.scale(DEPLOYMENT, 4, manager="kubectl")
    stale = deployment(replicas=2)
    stale["metadata"]["resourceVersion"] = created["metadata"]["resourceVersion"]
    with pytest.raises(ApiError) as conflict:
        await cluster.apply(stale)
    assert (conflict.value.status, conflict.value.reason) == (409, "Conflict")


async def test_an_apply_to_a_version_of_something_gone_is_a_conflict(cluster: MemoryCluster) -> None:
    stale = deployment(replicas=2)
    stale["metadata"]["resourceVersion"] = "1"
    with pytest.raises(ApiError) as conflict:
        await cluster.apply(stale)
    assert conflict.value.status == 409


async def test_a_status_without_its_object_is_not_found(cluster: MemoryCluster) -> None:
    with pytest.raises(ApiError) as missing:
        await cluster.update_status(service(), {})
    assert (missing.value.status, missing.value.reason) == (404, "NotFound")


async def test_a_status_made_of_an_older_version_is_a_conflict(cluster: MemoryCluster) -> None:
    observed = await cluster.apply(service())
    await cluster.apply({**service(), "spec": {"model": {"uri": "s3://models/other.onnx"}}})
    with pytest.raises(ApiError) as conflict:
        await cluster.update_status(observed, {"conditions": []})
    assert (conflict.value.status, conflict.value.reason) == (409, "Conflict")


async def test_a_replaced_object_is_not_deleted_in_the_name_of_the_old_one(cluster: MemoryCluster) -> None:
    old = await cluster.apply(service())
    await cluster.delete(old)
    await cluster.apply(service())
    with pytest.raises(ApiError) as conflict:
        await cluster.delete(old)
    assert conflict.value.status == 409
    await cluster.delete(service("never-was"))


async def test_what_an_object_owns_goes_with_it(cluster: MemoryCluster) -> None:
    owner = await cluster.apply(service())
    await cluster.apply(deployment(owner=owner["metadata"]["uid"]))
    await cluster.delete(owner)
    assert cluster.get(DEPLOYMENT) is None


async def test_a_child_written_after_its_owner_went_is_collected(cluster: MemoryCluster) -> None:
    owner = await cluster.apply(service())
    await cluster.delete(owner)
    await cluster.apply(deployment(owner=owner["metadata"]["uid"]))
    assert cluster.get(DEPLOYMENT) is None


async def test_a_pod_stays_while_it_is_leaving(cluster: MemoryCluster) -> None:
    owner = await cluster.apply(deployment())
    running = await cluster.apply(pod("one", owner=owner["metadata"]["uid"]))
    await cluster.delete(owner)
    leaving = cluster.get(names.ref(running))
    assert leaving is not None
    assert leaving["metadata"]["deletionTimestamp"] == NOW
    await cluster.delete(running, grace=False)
    assert cluster.all("Pod") == ()


async def test_an_immutable_config_map_keeps_its_data(cluster: MemoryCluster) -> None:
    await cluster.apply(config_map("a"))
    with pytest.raises(ApiError, match="data: field is immutable") as refused:
        await cluster.apply(config_map("b"))
    assert refused.value.status == 422


async def test_an_invalid_service_is_refused_with_the_explanation(cluster: MemoryCluster) -> None:
    with pytest.raises(ApiError, match="minReplicas must not exceed maxReplicas") as refused:
        await cluster.apply(service(scaling={"minReplicas": 3, "maxReplicas": 2}))
    assert (refused.value.status, refused.value.reason) == (422, "Invalid")
    assert cluster.all("InferenceService") == ()


async def test_events_are_kept_with_the_service_they_are_about(cluster: MemoryCluster) -> None:
    owner = await cluster.apply(service())
    event = Event("Warning", "ModelNotFound", "there is no file", "2026-01-01T00:00:00Z")
    await cluster.emit(owner, event)
    assert list(cluster.events) == [(Key("default", "digits"), event)]


FIELDS = st.sampled_from(["a", "b", "c"])
VALUES = st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=2)
TREES = st.recursive(
    st.dictionaries(FIELDS, VALUES, min_size=1, max_size=3),
    lambda inner: st.dictionaries(FIELDS, VALUES | inner, min_size=1, max_size=3),
    max_leaves=6,
)
APPLIES = st.lists(st.tuples(st.sampled_from(["one", "two"]), TREES), min_size=1, max_size=8)


@given(APPLIES)
def test_after_any_applies_the_object_holds_just_what_its_managers_claim(applies: list[tuple[str, Manifest]]) -> None:
    live: Manifest = {}
    owners = Owners()
    for manager, tree in applies:
        claimed = leaves(tree)
        kept = pruned(live, owners.abandoned(manager, claimed))
        owners = owners.apply(manager, claimed, before=live, after=tree)
        live = merged(kept, tree)
        assert merged(live, tree) == live  # what was applied by force is there
    claims = frozenset().union(*owners.fields.values())
    assert leaves(live) == claims


@given(TREES)
def test_a_sole_manager_replaces_everything(tree: Manifest) -> None:
    owners = Owners().apply("one", leaves(tree), before={}, after=tree)
    assert leaves(pruned(tree, owners.abandoned("one", frozenset()))) == frozenset()
