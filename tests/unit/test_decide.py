"""The composition: what is applied, deleted and left alone."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator import names
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.config import Config
from openclaw_operator.decide import Decision, decide, optimized, refuse, replicas, transitions
from openclaw_operator.errors import Terminal
from openclaw_operator.names import Manifest
from openclaw_operator.observe import Observed, Slot, observe
from simulation import children, services
from simulation.children import carried_out, deployment_of, rolled_out
from simulation.services import having

NOW = "2026-01-01T00:00:00Z"
LATER = "2026-01-01T00:01:00Z"
CONFIG = Config()


class World:
    """A service, its children, and an operator without a cluster: decisions are carried out at once."""

    def __init__(self, spec: Manifest | None = None, config: Config = CONFIG) -> None:
        self.manifest = services.manifest(spec)
        self.config = config
        self.children: list[Manifest] = []
        self.version = 1
        self.lingering: list[Manifest] = []

    @property
    def service(self) -> InferenceService:
        return InferenceService.parse(self.manifest)

    @property
    def observed(self) -> Observed:
        return observe(self.children, owner_uid="uid-1")

    @property
    def deployment(self) -> Manifest:
        return deployment_of(self.children)

    @property
    def image(self) -> str:
        return str(self.deployment["spec"]["template"]["spec"]["containers"][0]["image"])

    def decide(self, now: str = NOW) -> Decision:
        return decide(self.service, self.observed, self.config, now=now)

    def step(self, now: str = NOW) -> Decision:
        """One decision, carried out."""
        self.version += 1
        decision = self.decide(now)
        self.children = carried_out(decision, self.children, version=self.version)
        if decision.status is not None:
            self.manifest["status"] = decision.status
        return decision

    def change(self, spec: Manifest) -> None:
        self.manifest = {**self.manifest, "spec": spec}
        self.manifest["metadata"] = {
            **self.manifest["metadata"],
            "generation": self.manifest["metadata"]["generation"] + 1,
        }

    def roll_out(self, *, ready: int | None = None) -> None:
        """Kubernetes does its part: the pods are of the Deployment's template."""
        others = [each for each in self.children if each["kind"] not in {"Pod", "Deployment"}]
        self.children = [*others, *rolled_out(self.deployment, ready=ready), *self.lingering]

    def settle(self) -> None:
        """Everything is done and the status says so."""
        self.step()
        self.roll_out()
        self.step()
        self.step()

    def named(self, kind: str) -> list[str]:
        return sorted(each["metadata"]["name"] for each in self.children if each["kind"] == kind)


def kinds(decision: Decision) -> list[list[str]]:
    return [sorted(each["kind"] for each in wave) for wave in (*decision.apply, decision.later) if wave]


@given(spec=services.specs)
def test_once_everything_is_carried_out_there_is_nothing_left_to_do(spec: Manifest) -> None:
    world = World(spec)
    world.step()
    assert world.decide().apply == ()
    world.settle()
    assert world.decide(LATER).quiet


@given(before=services.specs, after=services.specs)
def test_from_any_spec_to_any_other_there_is_an_end(before: Manifest, after: Manifest) -> None:
    world = World(before)
    world.settle()
    world.change(after)
    world.settle()
    assert world.decide(LATER).quiet


@given(before=services.specs, after=services.specs)
def test_going_through_another_spec_leaves_nothing_of_it_but_its_history(before: Manifest, after: Manifest) -> None:
    """The difference to a service that was never anything else: revisions and their configuration."""
    straight, detour = World(after), World(before)
    for world in (straight, detour):
        world.settle()
    detour.change(after)
    detour.settle()
    history = {"ControllerRevision", "ConfigMap"}
    for kind in names.KINDS.keys() - history - {"Deployment", "Pod"}:
        assert detour.named(kind) == straight.named(kind)
    template = detour.deployment["spec"]["template"]
    if "image" in after.get("runtime", {}) or "image" not in before.get("runtime", {}):
        assert template == straight.deployment["spec"]["template"]


def test_what_pods_need_is_there_before_what_starts_them_and_what_looks_after_them_comes_last() -> None:
    assert kinds(World().decide()) == [
        ["ConfigMap", "ControllerRevision", "Service", "ServiceAccount"],
        ["Deployment"],
        ["HorizontalPodAutoscaler", "PodDisruptionBudget"],
    ]


@pytest.mark.parametrize("kind", [kind.name for kind in names.OWNED_KINDS])
def test_a_child_that_is_gone_is_made_again_and_nothing_else(kind: str) -> None:
    world = World()
    world.settle()
    before = sorted(map(names.ref, world.children))
    world.children = [each for each in world.children if each["kind"] != kind]
    decision = world.step()
    assert kinds(decision) == [[kind]]
    assert decision.delete == ()
    assert sorted(map(names.ref, world.children)) == before


EDITS: dict[str, Any] = {
    "Deployment": lambda child: child["spec"]["template"]["spec"]["containers"][0].update(image="evil:1"),
    "Service": lambda child: child["spec"]["selector"].update({"openclaw.io/service": "another"}),
    "HorizontalPodAutoscaler": lambda child: child["spec"].update(maxReplicas=100),
    "PodDisruptionBudget": lambda child: child["spec"].pop("maxUnavailable"),
    "ServiceAccount": lambda child: child.update(automountServiceAccountToken=True),
    "ControllerRevision": lambda child: child["metadata"]["annotations"].pop("openclaw.io/applied"),
}


@pytest.mark.parametrize(("kind", "edit"), EDITS.items(), ids=EDITS.keys())
def test_a_field_of_ours_that_was_edited_is_set_back(kind: str, edit: Any) -> None:
    world = World()
    world.settle()
    edit(next(each for each in world.children if each["kind"] == kind))
    assert kinds(world.step()) == [[kind]]
    assert world.decide().apply == ()


FOREIGN: dict[str, Any] = {
    "an annotation": lambda child: child["metadata"]["annotations"].update(note="mine"),
    "a label": lambda child: child["metadata"]["labels"].update(team="mine"),
    "a field that we do not set": lambda child: child["spec"].update(minReadySeconds=5),
    "a container beside ours": lambda child: child["spec"]["template"]["spec"]["containers"].append({"name": "x"}),
    "an annotation of the template": lambda child: child["spec"]["template"]["metadata"].update(
        annotations={"kubectl.kubernetes.io/restartedAt": NOW}
    ),
}


@pytest.mark.parametrize("edit", FOREIGN.values(), ids=FOREIGN.keys())
def test_what_others_add_to_a_deployment_is_left_alone(edit: Any) -> None:
    world = World()
    world.settle()
    edit(world.deployment)
    assert world.decide().quiet


@given(spec=services.specs)
def test_a_suspended_service_has_no_pods_and_nothing_that_makes_them(spec: Manifest) -> None:
    world = World(spec)
    world.settle()
    world.change({**spec, "suspend": True})
    world.settle()
    assert world.deployment["spec"]["replicas"] == 0
    assert world.named("HorizontalPodAutoscaler") == world.named("PodDisruptionBudget") == []
    assert world.named("Service") == ["digits"]


@given(spec=services.specs)
def test_a_resumed_service_is_what_it_was_before(spec: Manifest) -> None:
    spec = {**spec, "suspend": False}
    world = World(spec)
    world.settle()
    before = deepcopy(world.deployment["spec"])
    world.change({**spec, "suspend": True})
    world.settle()
    world.change(spec)
    world.settle()
    assert world.deployment["spec"] == before
    assert (len(world.named("ControllerRevision")), len(world.named("ConfigMap"))) == (1, 1)


def slot(count: int, *, ours: bool) -> Slot:
    return Slot(revision="r", replicas=count, owns_replicas=ours)


FIXED = {"minReplicas": 2, "maxReplicas": 2}
SCALED = {"minReplicas": 2, "maxReplicas": 8}


@pytest.mark.parametrize(
    ("spec", "living", "expected"),
    [
        (having(scaling=SCALED), None, 2),
        (having(scaling=SCALED), slot(2, ours=True), 2),
        (having(scaling=SCALED), slot(5, ours=False), None),
        (having(scaling=SCALED), slot(5, ours=True), 5),
        (having(scaling=SCALED), slot(1, ours=True), 2),
        (having(scaling=SCALED), slot(0, ours=True), 2),
        (having(scaling=SCALED), slot(0, ours=False), None),
        (having(scaling=FIXED), None, 2),
        (having(scaling=FIXED), slot(5, ours=False), 2),
        (having(scaling=FIXED), slot(5, ours=True), 2),
        (having(scaling=SCALED, suspend=True), slot(5, ours=False), 0),
        (having(scaling=SCALED, suspend=True), slot(5, ours=True), 0),
        (having(scaling=SCALED, suspend=True), None, 0),
    ],
    ids=[
        "first, with an autoscaler: the fewest",
        "not taken over yet: kept",
        "taken over: left out",
        "from fixed to scaled: no replica is dropped",
        "the fewest were raised: followed until taken over",
        "resumed: the fewest",
        "somebody scaled to zero: left out",
        "first, fixed: the number",
        "fixed, scaled by somebody: set back",
        "from scaled to fixed: set",
        "suspended: zero, whoever owns it",
        "suspended: zero",
        "suspended from the beginning: zero",
    ],
)
def test_the_number_of_replicas_is_handed_over(spec: Manifest, living: Slot | None, expected: int | None) -> None:
    assert replicas(services.service(spec), living) == expected


def scale(world: World, count: int, *, manager: str) -> None:
    deployment = world.deployment
    deployment["spec"]["replicas"] = count
    deployment["metadata"]["managedFields"] = children.owned_by(manager, subresource="scale")


@pytest.mark.parametrize("manager", ["kube-controller-manager", "kubectl"])
def test_a_number_of_replicas_that_somebody_took_over_is_not_fought(manager: str) -> None:
    world = World(having(scaling=SCALED))
    world.settle()
    scale(world, 6, manager=manager)
    assert world.decide().apply == ()
    world.change(having(scaling=SCALED, runtime={"workers": 2}))
    world.step()
    assert world.deployment["spec"]["replicas"] == 6


def test_a_number_of_replicas_is_written_only_over_the_version_it_was_read_from() -> None:
    world = World(having(scaling=FIXED))
    world.settle()
    read = world.deployment["metadata"]["resourceVersion"]
    scale(world, 6, manager="kubectl")
    ((written,),) = world.decide().apply
    assert written["spec"]["replicas"] == 2
    assert written["metadata"]["resourceVersion"] == read


def test_a_template_is_written_whatever_version_there_is_while_replicas_are_another_ones() -> None:
    world = World(having(scaling=SCALED))
    world.settle()
    scale(world, 6, manager="kubectl")
    world.change(having(scaling=SCALED, runtime={"workers": 2}))
    _, (written,) = world.decide().apply
    assert "resourceVersion" not in written["metadata"]


SPEC_A = having(runtime={"workers": 1})
SPEC_B = having(runtime={"workers": 2})


def test_going_back_takes_the_revision_that_was_kept_and_makes_it_the_newest() -> None:
    world = World(SPEC_A)
    world.settle()
    first = world.observed.latest
    world.change(SPEC_B)
    world.settle()
    world.change(SPEC_A)
    world.settle()
    latest = world.observed.latest
    assert first is not None
    assert latest is not None
    assert (latest.hash, latest.template, latest.number) == (first.hash, first.template, 3)
    assert len(world.observed.revisions) == 2
    assert world.decide().quiet


OTHER_OPERATOR = Config(
    runtime_image="openclaw-runtime:9", default_cpu="3", default_memory="3Gi", image_pull_policy="Always"
)


@given(spec=services.specs)
def test_another_operator_with_other_defaults_writes_nothing(spec: Manifest) -> None:
    world = World(spec)
    world.settle()
    world.config = OTHER_OPERATOR
    assert world.decide(LATER).quiet


def test_the_default_image_stays_pinned_through_changes_of_the_spec() -> None:
    world = World(SPEC_A)
    world.settle()
    world.config = OTHER_OPERATOR
    world.change(SPEC_B)
    world.settle()
    assert world.image == CONFIG.runtime_image
    world.change(having(runtime={"image": "mine:1"}))
    world.settle()
    assert world.image == "mine:1"
    world.change(SPEC_A)
    world.settle()
    assert world.image == CONFIG.runtime_image


def test_a_new_service_gets_the_image_of_the_operator_that_is_there() -> None:
    world = World(SPEC_A, OTHER_OPERATOR)
    world.settle()
    assert world.image == "openclaw-runtime:9"


def test_history_is_kept_to_its_limit_and_each_revision_with_its_configuration() -> None:
    world = World(SPEC_A, Config(revision_history_limit=2))
    for workers in range(1, 6):
        world.change(having(runtime={"workers": workers}))
        world.settle()
    assert sorted(revision.number for revision in world.observed.revisions) == [3, 4, 5]
    mounted = {
        volume["configMap"]["name"]
        for revision in world.observed.revisions
        for volume in revision.template["spec"]["volumes"]
        if "configMap" in volume
    }
    assert set(world.named("ConfigMap")) == mounted


def test_a_configuration_that_pods_still_read_is_kept_whatever_the_limit() -> None:
    world = World(SPEC_A, Config(revision_history_limit=1))
    world.settle()
    oldest = world.observed.latest
    assert oldest is not None
    world.lingering = [each for each in world.children if each["kind"] == "Pod"]
    for workers in range(2, 6):
        world.change(having(runtime={"workers": workers}))
        world.settle()
    mounted = oldest.template["spec"]["volumes"][0]["configMap"]["name"]
    assert oldest.hash in {revision.hash for revision in world.observed.revisions}
    assert mounted in world.named("ConfigMap")
    world.lingering = []
    world.settle()
    assert mounted not in world.named("ConfigMap")


def test_a_configuration_outlives_a_revision_that_somebody_deleted_under_running_pods() -> None:
    world = World(SPEC_A)
    world.settle()
    world.lingering = [each for each in world.children if each["kind"] == "Pod"]
    world.change(SPEC_B)
    world.settle()
    (oldest,) = [each for each in world.observed.revisions if each.number == 1]
    name = names.hashed_name("digits", oldest.hash)
    world.children = [each for each in world.children if each["metadata"]["name"] != name]
    world.settle()
    assert len(world.named("ConfigMap")) == 2
    world.lingering = []
    world.settle()
    assert len(world.named("ConfigMap")) == 1


def test_an_autoscaler_is_removed_when_scaling_is_switched_off() -> None:
    world = World(having(scaling=SCALED))
    world.settle()
    world.change(having(scaling=FIXED))
    assert [child["kind"] for child in world.step().delete] == ["HorizontalPodAutoscaler"]


@given(spec=services.specs, other=services.specs)
def test_nothing_is_deleted_that_is_wanted_and_nothing_of_others(spec: Manifest, other: Manifest) -> None:
    world = World(spec)
    world.settle()
    world.change(other)
    stranger = deepcopy(world.deployment)
    stranger["metadata"] |= {"name": "stranger", "ownerReferences": [], "labels": {"openclaw.io/service": "digits"}}
    world.children.append(stranger)
    decision = world.step()
    applied = {names.ref(child) for wave in (*decision.apply, decision.later) for child in wave}
    deleted = {names.ref(child) for child in decision.delete}
    assert not applied & deleted
    assert names.ref(stranger) not in applied | deleted


def condition(kind: str, state: str, reason: str) -> Manifest:
    return {"type": kind, "status": state, "reason": reason, "message": f"because of {reason}"}


def ready(state: str, reason: str) -> Manifest:
    return {"conditions": [condition("Ready", state, reason)]}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, ready("False", "RollingOut"), None),
        ({}, ready("False", "ModelNotFound"), "Warning"),
        (ready("False", "RollingOut"), ready("False", "PodsStarting"), None),
        (ready("False", "RollingOut"), ready("False", "ModelNotFound"), "Warning"),
        (ready("False", "PodsStarting"), ready("True", "InferenceAnswered"), "Normal"),
        (ready("True", "InferenceAnswered"), ready("True", "InferenceAnswered"), None),
        (ready("True", "InferenceAnswered"), ready("False", "RollingOut"), "Normal"),
        (ready("True", "InferenceAnswered"), ready("False", "OutOfMemory"), "Warning"),
        (ready("False", "OutOfMemory"), ready("False", "CrashLooping"), "Warning"),
        (ready("False", "OutOfMemory"), ready("True", "InferenceAnswered"), "Normal"),
        (ready("False", "OutOfMemory"), ready("False", "RollingOut"), "Normal"),
    ],
)
def test_events_tell_what_a_user_would_want_to_know_once(before: Manifest, after: Manifest, told: str | None) -> None:
    events = transitions(before, after, at="2026-01-01T00:00:00Z")
    assert [event.type for event in events] == ([told] if told else [])
    assert all(event.reason == after["conditions"][0]["reason"] and event.message for event in events)


def test_a_refusal_writes_a_condition_and_nothing_else() -> None:
    world = World()
    world.settle()
    bad = {**world.manifest, "metadata": {**world.manifest["metadata"], "generation": 2}}
    decision = refuse(bad, Terminal("InvalidSpec", "spec.model: required"), world.observed, now=LATER)
    assert (decision.apply, decision.later, decision.delete) == ((), (), ())
    assert [event.reason for event in decision.events] == ["InvalidSpec"]
    assert decision.status is not None
    told = {**bad, "status": decision.status}
    assert refuse(told, Terminal("InvalidSpec", "spec.model: required"), world.observed, now=NOW).quiet


@given(specs=st.lists(services.specs, min_size=2, max_size=4))
def test_revisions_are_numbered_in_the_order_in_which_they_became_current(specs: list[Manifest]) -> None:
    world = World(specs[0])
    for spec in specs:
        world.change(spec)
        world.settle()
        latest = world.observed.latest
        assert latest is not None
        assert world.observed.slots["a"].revision == latest.hash
    numbers = [revision.number for revision in world.observed.revisions]
    assert len(set(numbers)) == len(numbers)


def entry(**changes: Any) -> Manifest:
    return {"nodeType": "Fast CPU", "mode": "fp32", "outcome": "Optimized", "reason": "it is kept", "pods": 1} | changes


OPTIMIZATIONS: dict[str, tuple[list[Manifest], list[Manifest], list[tuple[str, str, str]]]] = {
    "the first": ([], [entry()], [("Normal", "Optimized", "Fast CPU: it is kept")]),
    "no news": ([entry()], [entry(pods=5, cached=4)], []),
    "another kind of nodes": (
        [entry()],
        [entry(), entry(nodeType="Slow CPU")],
        [("Normal", "Optimized", "Slow CPU: it is kept")],
    ),
    "nothing gained": ([], [entry(outcome="NothingFaster")], [("Normal", "NothingFaster", "Fast CPU: it is kept")]),
    "a failure": (
        [entry()],
        [entry(outcome="Failed", reason="killed")],
        [("Warning", "OptimizationFailed", "Fast CPU: killed")],
    ),
    "gone": ([entry()], [], []),
}


@pytest.mark.parametrize(("before", "after", "events"), OPTIMIZATIONS.values(), ids=OPTIMIZATIONS.keys())
def test_what_newly_came_of_optimizing_is_told(
    before: list[Manifest], after: list[Manifest], events: list[tuple[str, str, str]]
) -> None:
    told = optimized({"model": {"optimization": before}}, {"model": {"optimization": after}}, at=NOW)
    assert [(each.type, each.reason, each.message) for each in told] == events


def test_a_service_whose_pods_were_optimized_says_so_once() -> None:
    world = World(services.OPTIMIZED)
    world.settle()
    said = {"nodeType": "Fast CPU", "mode": "auto", "outcome": "NothingFaster", "reason": "nothing is faster"}
    state = {"terminated": {"exitCode": 0, "message": json.dumps({"optimization": said})}}
    for each in world.children:
        if each["kind"] == "Pod":
            each["status"]["initContainerStatuses"] = [{"name": "optimize", "state": state}]
    told = world.step()
    assert told.status is not None
    assert told.status["model"]["optimization"] == [{**said, "pods": 2, "cached": 0}]
    assert [event.reason for event in told.events] == ["NothingFaster"]
    assert world.decide(LATER).quiet
