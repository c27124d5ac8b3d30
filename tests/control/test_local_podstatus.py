"""A pod's status is what a kubelet would report, so the same diagnosis reads it."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator.diagnose import Problem, diagnose
from openclaw_operator.local import podstatus
from openclaw_operator.local.podstatus import Container, Ended, Waiting, address, backoff, pod_status
from openclaw_operator.local.probe import Check, Verdict, judged
from openclaw_operator.local.rollout import is_ready
from openclaw_operator.names import Manifest

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"
RUNNING = Container(running=NOW, started=True, pid=7, port=4711)
POD: Manifest = {"metadata": {"name": "one"}, "spec": {"containers": [{"name": "server", "image": "openclaw"}]}}


def reported(container: Container, *, pod: Manifest = POD, now: str = NOW) -> Manifest:
    return {**pod, "status": pod_status(pod, container, now=now)}


def test_a_pod_is_ready_only_once_the_gateway_sends_it_requests() -> None:
    probed = reported(replace(RUNNING, ready=True))
    routed = reported(replace(RUNNING, ready=True, routed=True))
    assert (is_ready(probed), address(probed)) == (False, 4711)
    assert (is_ready(routed), address(routed)) == (True, 4711)


def test_a_leaving_pod_gets_no_requests() -> None:
    pod = reported(replace(RUNNING, ready=True, routed=True))
    pod["metadata"] = {"name": "one", "deletionTimestamp": NOW}
    assert address(pod) is None


def test_what_the_server_said_when_it_ended_is_the_diagnosis_also_while_it_runs_again() -> None:
    said = '{"reason": "ModelNotFound", "message": "there is no file /x"}'
    ended = Ended(78, said, NOW, NOW)
    waiting = reported(Container(last=ended, waiting=Waiting("CrashLoopBackOff")))
    again = reported(replace(RUNNING, last=ended, restarts=1))
    assert diagnose([waiting]) == diagnose([again]) == Problem("ModelNotFound", "there is no file /x")


def test_a_container_that_cannot_be_created_is_diagnosed_with_the_reason() -> None:
    pod = reported(Container(waiting=Waiting("CreateContainerConfigError", "no Secrets")))
    assert diagnose([pod]) == Problem("ContainerConfigError", "the container cannot be created: no Secrets")


def test_a_conditions_time_changes_with_its_state_alone() -> None:
    first = reported(RUNNING)
    second = reported(RUNNING, pod=first, now=LATER)
    third = reported(replace(RUNNING, ready=True, routed=True), pod=second, now=LATER)
    assert _since(second)["Ready"] == NOW
    assert (_since(third)["Ready"], _since(third)["PodScheduled"]) == (LATER, NOW)


def _since(pod: Manifest) -> dict[str, str]:
    return {each["type"]: each["lastTransitionTime"] for each in pod["status"]["conditions"]}


def test_the_back_off_doubles_to_a_minute() -> None:
    assert [backoff(failures) for failures in (0, 1, 2, 3, 6, 7, 50)] == [1, 1, 2, 4, 32, 60, podstatus.MAX_BACKOFF]


CHECK = Check("/ready", period=1, timeout=1, failures=3, successes=2, delay=0)


@given(st.lists(st.booleans(), max_size=20))
def test_a_verdict_changes_only_after_enough_answers_in_a_row(answers: list[bool]) -> None:
    verdict = Verdict()
    for count in range(len(answers)):
        verdict = judged(CHECK, verdict, failure="" if answers[count] else "503")
        told = answers[: count + 1]
        if told[-2:] == [True, True]:
            assert verdict.passing is True
        if told[-3:] == [False, False, False]:
            assert verdict.passing is False
    passing: bool | None = None
    for count in range(1, len(answers) + 1):
        if answers[max(count - 2, 0) : count] == [True, True]:
            passing = True
        if answers[max(count - 3, 0) : count] == [False, False, False]:
            passing = False
    assert verdict.passing is passing


def test_a_probe_has_kubernetes_defaults_for_what_it_leaves_out() -> None:
    container = {"livenessProbe": {"httpGet": {"path": "/live", "port": "http"}, "periodSeconds": 3}}
    assert Check.of(container, "livenessProbe") == Check("/live", 3.0, 1.0, 3, 1, 0.0)
    assert Check.of(container, "startupProbe") is None


def test_the_step_before_the_server_is_reported_as_an_init_container() -> None:
    spec = {**POD["spec"], "initContainers": [{"name": "optimize", "image": "optimizer"}]}
    manifest = {**POD, "spec": spec}
    ended = Ended(0, "done", NOW, LATER)

    def status(step: Container) -> tuple[Manifest, str]:
        told = pod_status(manifest, Container(), now=NOW, step=step)
        (reported,) = told["initContainerStatuses"]
        return reported["state"], next(each["status"] for each in told["conditions"] if each["type"] == "Initialized")

    assert status(Container(running=NOW)) == ({"running": {"startedAt": NOW}}, "False")
    state, initialized = status(Container(last=ended, completed=True))
    assert (state["terminated"]["exitCode"], state["terminated"]["message"], initialized) == (0, "done", "True")
    assert "initContainerStatuses" not in pod_status(POD, Container(), now=NOW)
