"""The autoscaler on one machine follows HorizontalPodAutoscaler's formula, windows and policies."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator.cluster.memory import MemoryCluster
from openclaw_operator.local.autoscale import History, Sample, evaluate, requests_of
from openclaw_operator.local.autoscalers import Autoscalers
from openclaw_operator.names import Manifest, Ref
from openclaw_operator.observe import owns_replicas


def autoscaler(low: int = 1, high: int = 10, *, cpu: int = 80, memory: int | None = None, **behavior: Any) -> Manifest:
    targets = {"cpu": cpu, "memory": memory}
    metrics = [
        {
            "type": "ContainerResource",
            "containerResource": {
                "name": name,
                "container": "server",
                "target": {"type": "Utilization", "averageUtilization": percent},
            },
        }
        for name, percent in targets.items()
        if percent is not None
    ]
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "digits-a", "namespace": "default"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits-a"},
            "minReplicas": low,
            "maxReplicas": high,
            "metrics": metrics,
            **({"behavior": behavior} if behavior else {}),
        },
    }


def using(*shares: float, resource: str = "cpu") -> list[Sample]:
    """Ready pods that use these shares of what they request."""
    return [Sample(True, {resource: share}) for share in shares]


def wanted(scaler: Manifest, samples: list[Sample], replicas: int) -> int:
    return evaluate(scaler, samples, History(), replicas=replicas, now=10_000.0).replicas


def test_replicas_follow_the_ratio_of_use_to_target() -> None:
    assert wanted(autoscaler(), using(1.6, 1.6), 2) == 4
    assert wanted(autoscaler(), using(0.8, 1.2), 2) == 3


def test_a_tenth_more_or_less_than_the_target_changes_nothing() -> None:
    assert wanted(autoscaler(), using(0.88, 0.88), 2) == 2
    assert wanted(autoscaler(), using(0.72, 0.72), 2) == 2


def test_the_metric_that_asks_for_most_wins() -> None:
    samples = [Sample(True, {"cpu": 0.1, "memory": 1.8})]
    assert wanted(autoscaler(cpu=80, memory=90), samples, 1) == 2


def test_a_pod_that_is_not_ready_damps_growth() -> None:
    samples = [*using(1.6, 1.6), Sample(False, {"cpu": 0.0}), Sample(False, {})]
    assert wanted(autoscaler(), samples, 4) == 4


def test_a_pod_that_was_not_measured_damps_shrinking() -> None:
    assert wanted(autoscaler(), [*using(0.2), Sample(True, {})], 4) == 2
    assert wanted(autoscaler(), using(0.2), 4) == 1


def test_without_any_measurement_nothing_changes() -> None:
    assert wanted(autoscaler(), [Sample(True, {}), Sample(False, {"cpu": 3.0})], 3) == 3


def test_a_suspended_service_is_not_scaled() -> None:
    assert wanted(autoscaler(low=2), [], 0) == 0


def test_bounds_hold_whatever_the_load() -> None:
    assert wanted(autoscaler(2, 3), using(0.01), 2) == 2
    assert wanted(autoscaler(2, 3), using(9, 9), 2) == 3
    assert wanted(autoscaler(2, 3), [], 1) == 2


def test_shrinking_waits_for_the_highest_recommendation_of_five_minutes() -> None:
    scaler, history = autoscaler(), History()
    seen = []
    for now, use in ((0.0, 0.8), (100.0, 0.2), (301.0, 0.2)):
        verdict = evaluate(scaler, using(*[use] * 4), history, replicas=4, now=now)
        history = verdict.history
        seen.append(verdict.replicas)
    assert seen == [4, 4, 1]


def test_growth_is_limited_to_the_larger_of_doubling_and_four_pods_in_fifteen_seconds() -> None:
    first = evaluate(autoscaler(1, 100), using(8.0), History(), replicas=1, now=0.0)
    second = evaluate(autoscaler(1, 100), using(*[8.0] * 5), first.history, replicas=5, now=10.0)
    third = evaluate(autoscaler(1, 100), using(*[8.0] * 5), second.history, replicas=5, now=20.0)
    assert (first.replicas, second.replicas, third.replicas) == (5, 5, 10)


def test_a_policy_of_one_pod_a_minute_is_kept() -> None:
    rules = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}], "stabilizationWindowSeconds": 0}
    scaler = autoscaler(scaleDown=rules)
    first = evaluate(scaler, using(*[0.1] * 4), History(), replicas=4, now=0.0)
    second = evaluate(scaler, using(*[0.1] * 3), first.history, replicas=3, now=30.0)
    third = evaluate(scaler, using(*[0.1] * 3), second.history, replicas=3, now=61.0)
    assert (first.replicas, second.replicas, third.replicas) == (3, 3, 2)


def test_a_disabled_direction_does_not_move() -> None:
    assert wanted(autoscaler(scaleUp={"selectPolicy": "Disabled"}), using(8.0), 1) == 1
    assert wanted(autoscaler(scaleDown={"selectPolicy": "Disabled"}), using(0.01), 3) == 3


POLICIES = st.lists(
    st.builds(
        lambda kind, value, period: {"type": kind, "value": value, "periodSeconds": period},
        st.sampled_from(["Pods", "Percent"]),
        st.integers(1, 200),
        st.integers(1, 120),
    ),
    min_size=1,
    max_size=3,
)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "policies": POLICIES,
        "selectPolicy": st.sampled_from(["Max", "Min", "Disabled"]),
        "stabilizationWindowSeconds": st.integers(0, 400),
    },
)
SAMPLES = st.lists(
    st.builds(
        lambda ready, usage: Sample(ready, {} if usage is None else {"cpu": usage}),
        st.booleans(),
        st.none() | st.floats(0, 20),
    ),
    max_size=6,
)


@given(
    low=st.integers(1, 4),
    more=st.integers(0, 6),
    up=RULES,
    down=RULES,
    rounds=st.lists(st.tuples(st.integers(1, 120), SAMPLES), min_size=1, max_size=6),
)
def test_whatever_happens_replicas_stay_within_bounds_and_move_the_way_of_the_load(
    *, low: int, more: int, up: Manifest, down: Manifest, rounds: list[tuple[int, list[Sample]]]
) -> None:
    scaler = autoscaler(low, low + more, scaleUp=up, scaleDown=down)
    history, replicas, now = History(), low, 0.0
    for seconds, samples in rounds:
        now += seconds
        verdict = evaluate(scaler, samples, history, replicas=replicas, now=now)
        assert low <= verdict.replicas <= low + more
        busiest = max((each.usage.get("cpu", 0.0) for each in samples), default=0.0)
        if busiest <= 0.8:
            assert verdict.replicas <= replicas
        if samples and all(each.ready and each.usage.get("cpu", 0.0) >= 0.8 for each in samples):
            assert verdict.replicas >= replicas
        history, replicas = verdict.history, verdict.replicas


@given(st.integers(1, 8), st.floats(0.9, 20))
def test_with_every_pod_measured_growth_is_just_the_formula(pods: int, use: float) -> None:
    free = {"policies": [{"type": "Pods", "value": 10_000, "periodSeconds": 1}]}
    ratio = use / 0.8
    expected = pods if abs(ratio - 1) <= 0.1 else max(math.ceil(pods * ratio - 1e-9), pods)
    assert wanted(autoscaler(1, 100_000, scaleUp=free), using(*[use] * pods), pods) == expected


def test_a_limit_stands_for_a_request_that_is_missing() -> None:
    resources = {"requests": {"cpu": "500m"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    pod = {"spec": {"containers": [{"name": "server", "resources": resources}]}}
    assert requests_of(pod, "server") == {"cpu": 0.5, "memory": float(1 << 30)}


@pytest.fixture
async def cluster() -> MemoryCluster:
    """A Deployment of one ready pod that requests half a core, and its autoscaler."""
    made = MemoryCluster(clock=lambda: "2026-01-01T00:00:00Z")
    head = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "digits-a", "namespace": "default"}}
    owner = await made.apply({**head, "spec": {"replicas": 1}})
    await made.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "one",
                "namespace": "default",
                "ownerReferences": [{"kind": "Deployment", "name": "digits-a", "uid": owner["metadata"]["uid"]}],
            },
            "spec": {"containers": [{"name": "server", "resources": {"requests": {"cpu": "500m"}}}]},
        }
    )
    made.write_status(Ref("Pod", "default", "one"), {"conditions": [{"type": "Ready", "status": "True"}]})
    await made.apply(autoscaler(1, 4))
    return made


async def test_a_busy_pod_makes_the_autoscaler_take_the_replicas_over(cluster: MemoryCluster) -> None:
    used = iter([(0.0, 1), (1e9, 1)])
    scalers = Autoscalers(cluster, usage=lambda uid: next(used))
    await scalers.evaluate()
    unmeasured = cluster.get(Ref("Deployment", "default", "digits-a"))
    await scalers.evaluate()
    scaled = cluster.get(Ref("Deployment", "default", "digits-a"))
    told = cluster.get(Ref("HorizontalPodAutoscaler", "default", "digits-a"))
    assert unmeasured is not None
    assert scaled is not None
    assert told is not None
    assert (unmeasured["spec"]["replicas"], scaled["spec"]["replicas"]) == (1, 4)
    assert not owns_replicas(scaled["metadata"]["managedFields"])
    assert told["status"]["desiredReplicas"] == 4


async def test_a_pod_that_does_not_run_changes_nothing(cluster: MemoryCluster) -> None:
    scalers = Autoscalers(cluster, usage=lambda uid: None)
    await scalers.evaluate()
    await scalers.evaluate()
    kept = cluster.get(Ref("Deployment", "default", "digits-a"))
    assert kept is not None
    assert kept["spec"]["replicas"] == 1
