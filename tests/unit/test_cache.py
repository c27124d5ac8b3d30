"""What was last seen: fed in any order, by watches, listings and answers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator import names
from openclaw_operator.cluster.cache import Cache
from openclaw_operator.cluster.slim import slim
from openclaw_operator.config import Config
from openclaw_operator.decide import decide
from openclaw_operator.names import Key, Manifest
from openclaw_operator.observe import Observed, observe
from openclaw_operator.tiers import address, incarnation
from simulation import children, services

KEY = Key("vision", "digits")


def child(version: int, *, uid: str = "1", name: str = "digits", born: str = "2026-01-01T00:00:00Z") -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "vision",
            "uid": uid,
            "resourceVersion": str(version),
            "creationTimestamp": born,
            "labels": {names.SERVICE_LABEL: "digits"},
        },
        "spec": {"version": version},
    }


def version_of(cache: Cache) -> int | None:
    return next((each["spec"]["version"] for each in cache.children(KEY)), None)


@given(order=st.permutations(range(1, 7)))
def test_an_older_version_never_replaces_a_newer_one(order: list[int]) -> None:
    cache, newest = Cache(), 0
    for version in order:
        news = cache.put(child(version))
        assert (news == KEY) == (version > newest)
        newest = max(newest, version)
        assert version_of(cache) == newest


@given(order=st.permutations([(1, "1"), (2, "1"), (3, "2"), (4, "2")]))
def test_an_object_of_the_same_name_born_in_the_same_second_counts_by_its_version(order: list[Any]) -> None:
    cache = Cache()
    for version, uid in order:
        cache.put(child(version, uid=uid))
    assert version_of(cache) == 4


def test_an_object_born_later_replaces_an_earlier_one_whatever_their_versions() -> None:
    cache = Cache()
    cache.put(child(9, uid="1"))
    assert cache.put(child(3, uid="2", born="2026-01-01T00:00:01Z")) == KEY
    assert cache.put(child(10, uid="1")) is None
    assert version_of(cache) == 3


def test_a_version_that_says_nothing_new_is_no_news_but_is_kept() -> None:
    cache = Cache()
    cache.put(child(1))
    same = child(2)
    same["spec"] = {"version": 1}
    assert cache.put(same) is None
    assert cache.children(KEY)[0]["metadata"]["resourceVersion"] == "2"


def test_a_pods_heartbeat_is_no_news() -> None:
    deployment = {
        "metadata": {"name": "digits-a", "namespace": "vision"},
        "spec": {
            "template": {"metadata": {"labels": {names.SERVICE_LABEL: "digits", names.REVISION_LABEL: "r"}}},
        },
    }
    cache = Cache()
    pod = children.pod(deployment, 0)
    assert cache.put(pod) == KEY
    pod["metadata"]["resourceVersion"] = "2"
    pod["metadata"]["managedFields"] = [{"manager": "kubelet"}]
    pod["status"]["podIPs"] = [{"ip": "10.0.0.7"}]
    pod["status"]["conditions"].append({"type": "ContainersReady", "status": "True"})
    assert cache.put(pod) is None


def test_an_object_of_nobody_is_not_kept() -> None:
    stranger = child(1)
    stranger["metadata"]["labels"] = {}
    cache = Cache()
    assert cache.put(stranger) is None
    assert cache.remove(stranger) is None
    assert cache.seen("Service") == frozenset()


def test_an_object_that_is_deleted_is_forgotten_unless_another_took_its_name() -> None:
    cache = Cache()
    cache.put(child(1, uid="1"))
    cache.put(child(3, uid="2"))
    assert cache.remove(child(2, uid="1")) is None
    assert version_of(cache) == 3
    assert cache.remove(child(4, uid="2")) == KEY
    assert version_of(cache) is None
    assert cache.remove(child(4, uid="2")) is None


def test_what_was_deleted_is_not_brought_back_by_a_listing_or_an_answer_that_is_late() -> None:
    cache = Cache()
    cache.put(child(1))
    seen = cache.seen("Service")
    cache.remove(child(2))
    assert cache.put(child(1)) is None
    assert cache.replace("Service", [child(1)], seen=seen) == set()
    assert version_of(cache) is None
    assert cache.put(child(3, uid="2")) == KEY


def test_what_was_deleted_before_it_was_ever_seen_does_not_come_up_afterwards() -> None:
    cache = Cache()
    cache.remove(child(2))
    assert cache.replace("Service", [child(1)], seen=frozenset()) == set()
    assert version_of(cache) is None


def test_what_was_asked_to_be_deleted_may_still_live_for_a_while() -> None:
    cache = Cache()
    cache.put(child(1))
    assert cache.forget(child(1)) == KEY
    leaving = child(2)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert cache.put(leaving) == KEY


def test_the_memory_of_what_was_deleted_is_bounded() -> None:
    cache = Cache()
    for number in range(20_000):
        cache.remove(child(1, uid=f"dead-{number}"))
    assert cache.put(child(1, uid="dead-19999")) is None
    assert cache.put(child(1, uid="dead-0")) == KEY


def test_services_and_children_are_kept_apart_by_namespace() -> None:
    cache = Cache()
    cache.put(services.manifest())
    elsewhere = services.manifest(namespace="audio")
    cache.put(elsewhere)
    assert sorted(cache.services()) == [Key("audio", "digits"), KEY]
    cache.put(child(1))
    assert cache.children(Key("audio", "digits")) == []
    assert cache.remove(elsewhere) == Key("audio", "digits")
    assert cache.service(Key("audio", "digits")) is None
    assert cache.service(KEY) is not None


def test_a_child_outlives_its_service_until_it_is_deleted_too() -> None:
    cache = Cache()
    cache.put(services.manifest())
    cache.put(child(1))
    cache.remove(services.manifest())
    assert cache.service(KEY) is None
    assert version_of(cache) == 1
    cache.remove(child(1))
    assert cache.children(KEY) == []


def test_what_a_listing_misses_is_forgotten_if_it_was_known_before_the_listing_was_asked_for() -> None:
    cache = Cache()
    cache.put(child(1, name="gone"))
    seen = cache.seen("Service")
    cache.put(child(5, name="made-meanwhile"))
    assert cache.replace("Service", [], seen=seen) == {KEY}
    assert [each["metadata"]["name"] for each in cache.children(KEY)] == ["made-meanwhile"]


def test_a_listing_of_one_kind_forgets_nothing_of_another() -> None:
    cache = Cache()
    cache.put(child(1))
    assert cache.replace("ConfigMap", [], seen=cache.seen("Service")) == set()
    assert version_of(cache) == 1


def test_a_listing_that_is_older_than_an_event_takes_nothing_back() -> None:
    cache = Cache()
    cache.put(child(1))
    seen = cache.seen("Service")
    cache.put(child(7))
    assert cache.replace("Service", [child(1)], seen=seen) == set()
    assert version_of(cache) == 7


def test_an_object_recreated_while_it_was_listed_stays() -> None:
    cache = Cache()
    cache.put(child(1, uid="1"))
    seen = cache.seen("Service")
    cache.remove(child(2, uid="1"))
    cache.put(child(3, uid="2"))
    cache.replace("Service", [], seen=seen)
    assert version_of(cache) == 3


versions = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), max_size=4)


@given(before=versions, listed=versions)
def test_after_a_listing_exactly_what_it_holds_is_known_in_its_newest_version(
    before: dict[str, int], listed: dict[str, int]
) -> None:
    cache = Cache()
    for name, version in before.items():
        cache.put(child(version, name=name))
    listing = [child(version, name=name) for name, version in listed.items()]
    changed = cache.replace("Service", listing, seen=cache.seen("Service"))
    known = {each["metadata"]["name"]: each["spec"]["version"] for each in cache.children(KEY)}
    assert known == {name: max(version, before.get(name, 0)) for name, version in listed.items()}
    assert changed == ({KEY} if known != before else set())


@pytest.mark.parametrize("spec", [services.LEAST, services.FULL])
def test_whatever_is_decided_from_whole_objects_is_decided_from_slim_ones(spec: Manifest) -> None:
    service = services.service(spec)
    decision = decide(service, Observed(), Config(), now="2026-01-01T00:00:00Z")
    living = children.carried_out(decision, [])
    deployment = children.deployment_of(living)
    crashed = {
        "containerStatuses": [
            {
                "name": "server",
                "image": "i",
                "ready": False,
                "restartCount": 2,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            }
        ]
    }
    evicted = children.pod(deployment, 1, phase="Failed", reason="Evicted", message="low on memory")
    states = (
        children.rolled_out(deployment),
        [deployment, children.pod(deployment, 0, ready=False, **crashed)],
        [deployment, children.pod(deployment, 0), evicted],
    )
    for state in states:
        whole = [*(each for each in living if each is not deployment), *state]
        decisions = [
            decide(service, observe(each, owner_uid="uid-1"), Config(), now="2026-01-01T00:00:00Z")
            for each in (whole, list(map(slim, whole)))
        ]
        assert decisions[0] == decisions[1]


@pytest.mark.parametrize("place", [{"podIP": "10.0.0.7"}, {"podIP": "127.0.0.1", "local": {"pid": 7, "port": 4711}}])
def test_a_slim_pod_is_asked_where_the_whole_one_is(place: Manifest) -> None:
    servers = [{"name": "server", "restartCount": 2, "imageID": "i", "state": {"running": {}}}]
    status = {"hostIP": "10.9.9.9", "qosClass": "Burstable", "containerStatuses": servers, **place}
    whole = {"kind": "Pod", "metadata": {"name": "p", "uid": "u"}, "spec": {"containers": []}, "status": status}
    assert address(slim(whole)) == address(whole) is not None
    assert incarnation(slim(whole)) == incarnation(whole) == ("u", 2)
