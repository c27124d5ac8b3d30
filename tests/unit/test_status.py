"""Conditions, counts and traffic for every state that a service can be in."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator.api.v1alpha1 import InferenceService, InferenceServiceStatus
from openclaw_operator.config import Config
from openclaw_operator.errors import Terminal
from openclaw_operator.names import Manifest
from openclaw_operator.observe import Observed, Pod, Slot
from openclaw_operator.render.revision import Revision, new_revision
from openclaw_operator.status import condition, refused, served
from simulation import services
from simulation.services import having

NOW, EARLIER = "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"
REVISION: Revision = new_revision(services.service(), Config(), number=1, default_image="image:1")
CURRENT, OLD = REVISION.hash, "0123456789"

CRASHED: Manifest = {
    "metadata": {"name": "digits-a-1"},
    "status": {
        "containerStatuses": [
            {
                "name": "server",
                "lastState": {
                    "terminated": {"exitCode": 78, "message": '{"reason": "ModelNotFound", "message": "no such file"}'}
                },
            }
        ]
    },
}


FORM: Manifest = {
    "outcome": "Optimized", "nodeType": "Fast CPU, 2 threads", "mode": "fp32", "form": "fp32-passes",
    "latencyPercent": 83, "reason": "fp32-passes is kept",
}  # fmt: skip


def stepping(**state: Any) -> Manifest:
    """A pod whose step before the server is in a state."""
    statuses = [{"name": "optimize", "state": state}]
    return {"metadata": {"name": "x"}, "status": {"initContainerStatuses": statuses}}


BUSY = stepping(running={"startedAt": NOW})
OPTIMIZED = stepping(terminated={"exitCode": 0, "message": json.dumps({"optimization": {**FORM, "cached": True}})})


def pod(
    revision: str = CURRENT,
    *,
    ready: bool = True,
    live: bool = True,
    manifest: Manifest | None = None,
    tier: str | None = "",
) -> Pod:
    manifest = manifest or {"metadata": {"name": "x"}}
    return Pod(name="x", slot="a", revision=revision, ready=ready, live=live, manifest=manifest, tier=tier)


SLOT = Slot(revision=CURRENT, replicas=2, owns_replicas=True)


def told(slot: Slot | None, *pods: Pod, service: InferenceService | None = None, least: int = 2) -> dict[str, Any]:
    observed = Observed(slots={"a": slot} if slot else {}, pods=pods)
    return served(service or services.service(), REVISION, observed, least=least, url="http://x", now=NOW)


def reason(status: dict[str, Any], kind: str = "Ready") -> tuple[str, str]:
    found = condition(status, kind)
    return found["status"], found["reason"]


STATES: dict[str, tuple[Slot | None, tuple[Pod, ...], dict[str, tuple[str, str]]]] = {
    "nothing there yet": (
        None,
        (),
        {
            "Ready": ("False", "RollingOut"),
            "Available": ("False", "NoPodServing"),
            "ModelLoaded": ("Unknown", "Loading"),
            "Progressing": ("True", "RollingOut"),
        },
    ),
    "pods are there, none loaded": (
        SLOT,
        (pod(ready=False), pod(ready=False)),
        {"Ready": ("False", "PodsStarting"), "ModelLoaded": ("Unknown", "Loading"), "Progressing": ("True", "PodsSt")},
    ),
    "one of two answered": (
        SLOT,
        (pod(), pod(ready=False)),
        {"Ready": ("False", "PodsStarting"), "Available": ("True", "PodsServing"), "ModelLoaded": ("True", "Loaded")},
    ),
    "all answered": (
        SLOT,
        (pod(), pod()),
        {
            "Ready": ("True", "InferenceAnswered"),
            "Available": ("True", "PodsServing"),
            "ModelLoaded": ("True", "Loaded"),
            "Progressing": ("False", "RolledOut"),
        },
    ),
    "all answered, while the number of replicas changes": (
        replace(SLOT, replicas=4),
        (pod(), pod()),
        {"Ready": ("True", "InferenceAnswered"), "Progressing": ("False", "RolledOut")},
    ),
    "nobody has acted on the Deployment yet": (
        SLOT,
        (pod(OLD), pod(OLD)),
        {"Ready": ("False", "RollingOut"), "Progressing": ("True", "RollingOut")},
    ),
    "enough answered, those before still serve": (
        SLOT,
        (pod(), pod(), pod(OLD)),
        {"Ready": ("False", "RollingOut"), "Progressing": ("True", "RollingOut")},
    ),
    "models are optimized": (
        SLOT,
        (pod(ready=False, manifest=BUSY), pod(ready=False)),
        {
            "Ready": ("False", "Optimizing"),
            "Available": ("False", "NoPodServing"),
            "ModelLoaded": ("Unknown", "Loading"),
            "Progressing": ("True", "Optimizing"),
        },
    ),
    "models are optimized while those before serve": (
        SLOT,
        (pod(ready=False, manifest=BUSY), pod(OLD), pod(OLD)),
        {"Ready": ("False", "Optimizing"), "Available": ("True", "PodsServing")},
    ),
    "optimized, and now starting": (
        SLOT,
        (pod(ready=False, manifest=OPTIMIZED), pod(ready=False, manifest=OPTIMIZED)),
        {"Ready": ("False", "PodsStarting")},
    ),
    "one more is optimized than is needed": (
        SLOT,
        (pod(), pod(), pod(ready=False, manifest=BUSY)),
        {"Ready": ("True", "InferenceAnswered")},
    ),
    "one is optimized, another one's model is not there": (
        SLOT,
        (pod(ready=False, manifest=BUSY), pod(ready=False, manifest=CRASHED)),
        {"Ready": ("False", "ModelNotFound")},
    ),
    "all answered, of the revision before": (
        replace(SLOT, revision=OLD),
        (pod(OLD), pod(OLD)),
        {"Ready": ("False", "RollingOut"), "Available": ("True", "PodsServing"), "ModelLoaded": ("Unknown", "Loading")},
    ),
    "all answered, an old pod has ended and one is being deleted": (
        SLOT,
        (pod(), pod(), pod(OLD, live=False), pod(OLD, ready=False, live=False)),
        {"Ready": ("True", "InferenceAnswered"), "ModelLoaded": ("True", "Loaded")},
    ),
    "answered once, leaving now": (
        SLOT,
        (pod(live=False), pod(live=False)),
        {"Ready": ("False", "RollingOut"), "Available": ("False", "NoPodServing")},
    ),
    "model is not there": (
        SLOT,
        (pod(ready=False, manifest=CRASHED), pod(ready=False, manifest=CRASHED)),
        {
            "Ready": ("False", "ModelNotFound"),
            "Available": ("False", "NoPodServing"),
            "ModelLoaded": ("False", "ModelNotFound"),
            "Progressing": ("False", "ModelNotFound"),
        },
    ),
    "model of the new revision is not there, the old one serves": (
        SLOT,
        (pod(ready=False, manifest=CRASHED), pod(OLD), pod(OLD)),
        {"Ready": ("False", "ModelNotFound"), "Available": ("True", "PodsServing")},
    ),
    "an old pod crashes while the new ones start": (
        SLOT,
        (pod(ready=False), pod(OLD, ready=False, manifest=CRASHED), pod(OLD)),
        {"Ready": ("False", "RollingOut")},
    ),
    "one crashes beyond the fewest": (
        SLOT,
        (pod(), pod(), pod(ready=False, manifest=CRASHED)),
        {"Ready": ("True", "InferenceAnswered")},
    ),
    "pods are refused": (
        replace(SLOT, refused="exceeded quota"),
        (),
        {"Ready": ("False", "PodsRefused"), "Progressing": ("False", "PodsRefused")},
    ),
    "the deadline passed": (
        replace(SLOT, stalled="ReplicaSet has timed out progressing"),
        (pod(ready=False), pod(ready=False)),
        {"Ready": ("False", "ProgressDeadlineExceeded")},
    ),
    "the deadline of the revision before passed": (
        replace(SLOT, revision=OLD, stalled="timed out"),
        (pod(OLD, ready=False),),
        {"Ready": ("False", "RollingOut")},
    ),
    "somebody scaled to zero": (
        replace(SLOT, replicas=0, owns_replicas=False),
        (),
        {"Ready": ("False", "ScaledToZero")},
    ),
}


@pytest.mark.parametrize(("slot", "pods", "expected"), STATES.values(), ids=STATES.keys())
def test_every_state_has_its_conditions(slot: Slot | None, pods: tuple[Pod, ...], expected: dict[str, Any]) -> None:
    status = told(slot, *pods)
    for kind, (state, why) in expected.items():
        assert reason(status, kind)[0] == state, kind
        assert reason(status, kind)[1].startswith(why), kind


def test_a_sentence_says_who_serves_while_something_is_wrong() -> None:
    _, pods, _ = STATES["model of the new revision is not there, the old one serves"]
    message = condition(told(SLOT, *pods), "Ready")["message"]
    assert message == "no such file; 2 pods of an earlier revision keep serving"


def test_who_waits_for_an_optimization_is_told_how_many_are_at_it_and_who_serves() -> None:
    _, pods, _ = STATES["models are optimized while those before serve"]
    message = condition(told(SLOT, *pods), "Ready")["message"]
    assert f"1 of 1 pod of revision {CURRENT} is at it, or waits for the result of another" in message
    assert message.endswith("; 2 pods of an earlier revision keep serving")


def test_what_came_of_an_optimization_is_shown_for_the_pods_of_this_revision() -> None:
    entry = {**FORM, "pods": 2, "cached": 2}
    optimized = pod(manifest=OPTIMIZED)
    assert told(SLOT, optimized, optimized)["model"] == {"optimization": [entry]}
    assert "model" not in told(SLOT, pod(), pod(OLD, manifest=OPTIMIZED), pod(live=False, manifest=OPTIMIZED))


def test_where_the_model_is_is_shown_for_the_ready_pods_of_this_revision() -> None:
    others = (pod(OLD, tier="evicted"), pod(ready=False, tier="evicted"), pod(live=False, tier="evicted"))
    status = told(SLOT, pod(tier="mapped"), pod(tier="packed"), pod(tier="packed"), pod(), *others)
    assert status["model"] == {"tiers": [{"tier": "packed", "pods": 2}, {"tier": "mapped", "pods": 1}]}
    message = condition(status, "ModelLoaded")["message"]
    assert message.startswith("the model is loaded and answered an inference; in 1 of 3 pods its weights")


def test_what_was_told_of_the_pods_stays_until_each_was_asked_but_not_for_another_revision() -> None:
    before = told(SLOT, pod(tier="packed"), pod(tier="packed"))
    unasked = (pod(tier=None), pod(tier="mapped"))
    assert told(SLOT, *unasked, service=services.service(status=before))["model"] == before["model"]
    assert "model" not in told(SLOT, *unasked, service=services.service(status={**before, "revision": OLD}))
    assert "model" not in told(SLOT, pod(), pod(), service=services.service(status=before))


def test_a_suspended_service_says_so_and_what_to_do() -> None:
    suspended = services.service(having(suspend=True))
    status = told(replace(SLOT, replicas=0), service=suspended, least=0)
    assert reason(status) == ("False", "Suspended")
    assert "set it to false to serve" in condition(status, "Ready")["message"]
    assert "ModelLoaded" not in [each["type"] for each in status["conditions"]]


slots = st.none() | st.builds(
    Slot,
    revision=st.sampled_from([CURRENT, OLD]),
    replicas=st.integers(0, 4),
    owns_replicas=st.booleans(),
    stalled=st.sampled_from(["", "late"]),
    refused=st.sampled_from(["", "quota"]),
)
pods = st.lists(
    st.builds(
        pod,
        st.sampled_from([CURRENT, OLD]),
        ready=st.booleans(),
        live=st.booleans(),
        manifest=st.sampled_from([CRASHED, BUSY, OPTIMIZED, {"metadata": {"name": "x"}}]),
        tier=st.sampled_from(["packed", "mapped", "evicted", "", None]),
    ),
    max_size=5,
)
befores = st.sampled_from(
    [
        {},
        {"conditions": [{"type": "Ready", "status": "True", "reason": "Old", "lastTransitionTime": EARLIER}]},
        {"conditions": [{"type": "Ready", "status": "False", "reason": "Old", "lastTransitionTime": EARLIER}]},
    ]
)


@given(slot=slots, pods=pods, least=st.integers(1, 3), generation=st.integers(1, 9))
def test_ready_is_true_only_for_this_generation_rolled_out_with_enough_pods_that_answered(
    *, slot: Slot | None, pods: list[Pod], least: int, generation: int
) -> None:
    status = told(slot, *pods, service=services.service(generation=generation), least=least)
    live = [each for each in pods if each.live]
    answered = [each for each in live if each.ready and each.revision == CURRENT]
    assert status["readyReplicas"] == len(answered)
    assert status["replicas"] == len(live)
    assert all(
        each["observedGeneration"] == generation == status["observedGeneration"] for each in status["conditions"]
    )
    rolled_out = slot is not None and slot.revision == CURRENT and all(each.revision == CURRENT for each in live)
    assert (reason(status)[0] == "True") == (rolled_out and len(answered) >= least)


@given(slot=slots, pods=pods)
def test_all_shares_of_the_traffic_sum_to_a_hundred_or_nobody_answers(slot: Slot | None, pods: list[Pod]) -> None:
    shares = told(slot, *pods).get("traffic", [])
    serving = {each.revision for each in pods if each.ready and each.live}
    assert sum(share["percent"] for share in shares) == (100 if serving else 0)
    assert {share["revision"] for share in shares} <= serving


@given(slot=slots, pods=pods, before=befores, suspend=st.booleans())
def test_a_status_is_what_the_schema_has_and_every_reason_a_word(
    *, slot: Slot | None, pods: list[Pod], before: Manifest, suspend: bool
) -> None:
    service = services.service(having(suspend=suspend), status=before)
    status = told(slot, *pods, service=service, least=0 if suspend else 2)
    InferenceServiceStatus.model_validate(status)
    kinds = [each["type"] for each in status["conditions"]]
    assert kinds[0] == "Ready"
    assert len(set(kinds)) == len(kinds)
    for each in status["conditions"]:
        assert re.fullmatch("[A-Z][A-Za-z]+", each["reason"])
        assert each["message"]


@given(slot=slots, pods=pods, before=befores)
def test_a_time_changes_with_a_state_and_with_nothing_else(
    slot: Slot | None, pods: list[Pod], before: Manifest
) -> None:
    status = told(slot, *pods, service=services.service(status=before))
    was, now = condition(before, "Ready"), condition(status, "Ready")
    assert now["lastTransitionTime"] == (EARLIER if was.get("status") == now["status"] else NOW)


@given(slot=slots, pods=pods)
def test_a_status_told_twice_is_the_same(slot: Slot | None, pods: list[Pod]) -> None:
    first = told(slot, *pods)
    observed = Observed(slots={"a": slot} if slot else {}, pods=tuple(pods))
    again = served(services.service(status=first), REVISION, observed, least=2, url="http://x", now="9999")
    assert again == first


TERMINAL = Terminal("InvalidSpec", "spec.model: Field required")


@given(slot=slots, pods=pods)
def test_a_refused_spec_keeps_what_was_said_of_the_pods_that_serve(slot: Slot | None, pods: list[Pod]) -> None:
    before = told(slot, *pods)
    manifest = services.manifest({}, status=before, generation=2)
    observed = Observed(slots={"a": slot} if slot else {}, pods=tuple(pods))
    status = refused(manifest, TERMINAL, observed, now=NOW)
    InferenceServiceStatus.model_validate(status)
    assert reason(status) == reason(status, "Progressing") == ("False", "InvalidSpec")
    assert status["observedGeneration"] == 2
    assert status["url"] == before["url"]
    assert reason(status, "Available") == reason(before, "Available")
    assert status["replicas"] == before["replicas"]
    assert status.get("traffic") == before.get("traffic")
    assert status.get("model") == before.get("model")
    message = condition(status, "Ready")["message"]
    assert message.startswith(TERMINAL.message)
    assert ("of an earlier revision keep" in message) == (observed.serving > 0)
    assert refused({**manifest, "status": status}, TERMINAL, observed, now="9999") == status


def test_a_refused_spec_does_not_hide_that_the_pods_that_served_are_gone() -> None:
    before = told(SLOT, pod(), pod())
    status = refused(services.manifest({}, status=before), TERMINAL, Observed(slots={"a": SLOT}), now=NOW)
    assert (status["replicas"], status["readyReplicas"]) == (0, 0)
    assert "traffic" not in status


def test_a_spec_refused_from_the_beginning_has_a_status_too() -> None:
    status = refused(services.manifest({}), TERMINAL, Observed(), now=NOW)
    assert status["readyReplicas"] == 0
    assert reason(status, "Available") == ("False", "NoPodServing")


def test_a_sentence_is_cut_to_what_a_condition_may_hold() -> None:
    status = refused(services.manifest({}), Terminal("InvalidSpec", "x" * 40_000), Observed(), now=NOW)
    assert len(condition(status, "Ready")["message"]) == 32768
