"""Rolling updates on one machine follow the Deployment controller's rules."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from openclaw_operator.local import rollout
from openclaw_operator.local.moments import parsed
from openclaw_operator.local.rollout import Bounds, Replica, Step, bounds, next_step
from openclaw_operator.names import Manifest

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def deployment(replicas: int, *, surge: int | str = 1, unavailable: int | str = 0, **status: Any) -> Manifest:
    return {
        "metadata": {"name": "digits-a", "generation": 2},
        "spec": {
            "replicas": replicas,
            "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
            "progressDeadlineSeconds": 60,
            "template": {},
        },
        "status": status,
    }


def replica(name: str, *, current: bool = True, available: bool = True) -> Replica:
    return Replica(name, current, available, "2026-01-01T00:00:00Z")


def test_percentages_round_up_for_surge_and_down_for_unavailable() -> None:
    assert bounds(deployment(5, surge="25%", unavailable="25%")) == Bounds(5, 7, 4)


def test_a_rollout_that_could_never_move_may_take_one_pod_away() -> None:
    assert bounds(deployment(3, surge=0, unavailable=0)).least == 2


def test_a_suspended_deployment_may_have_no_pod() -> None:
    limits = bounds(deployment(0))
    assert limits == Bounds(0, 0, 0)
    assert next_step(limits, [replica("a"), replica("b", current=False)]).delete == ("a", "b")


def test_the_old_pod_stays_until_the_new_one_is_available() -> None:
    limits = bounds(deployment(1))
    old = replica("old", current=False)
    assert next_step(limits, [old]) == Step(create=1)
    assert next_step(limits, [old, replica("new", available=False)]) == Step()
    assert next_step(limits, [old, replica("new")]) == Step(delete=("old",))


def test_the_old_pods_of_a_broken_rollout_are_replaced_one_for_one_by_the_next_template() -> None:
    limits = bounds(deployment(1))
    pods = [replica("good", current=False), replica("broken", current=False, available=False)]
    first = next_step(limits, pods)
    assert first.delete == ("broken",)
    assert next_step(limits, [pods[0]]) == Step(create=1)


def test_an_old_pod_that_is_unavailable_for_a_moment_is_kept_while_the_new_one_starts() -> None:
    pods = [replica("old", current=False, available=False), replica("new", available=False)]
    assert next_step(bounds(deployment(1)), pods) == Step()


def test_scaling_down_takes_pods_that_serve_nobody_first() -> None:
    pods = [replica("a"), replica("b", available=False), replica("c")]
    assert next_step(bounds(deployment(2)), pods) == Step(delete=("b",))


class Rollout(RuleBasedStateMachine):
    """Any order of template changes, scalings, starts and crashes, against the pods that the plan makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.pods: dict[str, Replica] = {}
        self.count = 0
        self.limits = bounds(deployment(0))

    @initialize(replicas=st.integers(1, 4), surge=st.integers(1, 2), unavailable=st.integers(0, 1))
    def begin(self, replicas: int, surge: int, unavailable: int) -> None:
        self.surge, self.unavailable = surge, unavailable
        self.limits = bounds(deployment(replicas, surge=surge, unavailable=unavailable))

    @rule()
    def new_template(self) -> None:
        self.pods = {name: Replica(name, False, pod.available) for name, pod in self.pods.items()}

    @rule(replicas=st.integers(0, 4))
    def scale(self, replicas: int) -> None:
        self.limits = bounds(deployment(replicas, surge=self.surge, unavailable=self.unavailable))

    @precondition(lambda self: self.pods)
    @rule(data=st.data(), available=st.booleans())
    def change(self, data: st.DataObject, available: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.pods)))
        self.pods[name] = Replica(name, self.pods[name].current, available)

    @rule()
    def act(self) -> None:
        self.step()

    @rule()
    def all_start_until_nothing_is_left_to_do(self) -> None:
        for _ in range(30):
            self.pods = {name: Replica(name, pod.current, True) for name, pod in self.pods.items()}
            if self.step() == Step():
                break
        assert len(self.pods) == self.limits.replicas
        assert all(pod.current for pod in self.pods.values())

    def step(self) -> Step:
        before = sum(pod.available for pod in self.pods.values())
        step = next_step(self.limits, self.pods.values())
        for name in step.delete:
            del self.pods[name]
        left = sum(pod.available for pod in self.pods.values())
        assert left >= min(before, self.limits.least), "fewer pods are available than must be"
        for _ in range(step.create):
            self.count += 1
            self.pods[f"pod-{self.count:03}"] = Replica(f"pod-{self.count:03}", True, False)
        if step.create:
            assert len(self.pods) + len(step.delete) <= self.limits.most, "more pods exist than may"
        return step

    @invariant()
    def a_step_never_creates_and_deletes_the_newest_template(self) -> None:
        step = next_step(self.limits, self.pods.values())
        assert not (step.create and any(self.pods[name].current for name in step.delete))


TestRollout = Rollout.TestCase


def test_a_rollout_counts_as_done_when_every_pod_is_new_and_available() -> None:
    written = rollout.status(deployment(2), [replica("a"), replica("b")], now=NOW)
    conditions = {each["type"]: each for each in written["conditions"]}
    assert (written["observedGeneration"], written["updatedReplicas"], written["availableReplicas"]) == (2, 2, 2)
    assert conditions["Progressing"]["reason"] == "NewReplicaSetAvailable"
    assert conditions["Available"]["status"] == "True"


def test_a_rollout_without_progress_is_stalled_after_its_deadline_and_recovers_with_the_first_pod() -> None:
    pods = [replica("old", current=False), replica("new", available=False)]
    told = deployment(1)
    told["status"] = rollout.status(told, pods, now=NOW)
    assert rollout.deadline(told) == 60
    early = rollout.status(told, pods, now=NOW + timedelta(seconds=59))
    late = rollout.status(told, pods, now=NOW + timedelta(seconds=60))
    healed = rollout.status({**told, "status": late}, [replica("new")], now=NOW + timedelta(seconds=70))
    reasons = [_progressing(each)["reason"] for each in (early, late, healed)]
    assert reasons == ["ReplicaSetUpdated", "ProgressDeadlineExceeded", "NewReplicaSetAvailable"]
    assert early == told["status"]


def test_a_pod_that_fails_after_the_rollout_was_done_does_not_make_it_stalled() -> None:
    told = deployment(1)
    told["status"] = rollout.status(told, [replica("a")], now=NOW)
    later = rollout.status(told, [replica("a", available=False)], now=NOW + timedelta(hours=1))
    assert _progressing(later)["reason"] == "NewReplicaSetAvailable"
    assert rollout.deadline({**told, "status": later}) is None


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), max_size=5),
    st.integers(0, 4),
    st.integers(0, 200),
)
def test_a_status_written_twice_is_the_same(flags: list[tuple[bool, bool]], replicas: int, seconds: int) -> None:
    pods = [replica(f"pod-{index}", current=current, available=ok) for index, (current, ok) in enumerate(flags)]
    told = deployment(replicas)
    told["status"] = rollout.status(told, pods, now=NOW)
    later = NOW + timedelta(seconds=seconds)
    again = rollout.status(told, pods, now=later)
    settled = rollout.status({**told, "status": again}, pods, now=later)
    assert settled == again
    assert parsed(_progressing(again)["lastTransitionTime"]) <= later


def _progressing(status: Manifest) -> Manifest:
    return next(each for each in status["conditions"] if each["type"] == "Progressing")
