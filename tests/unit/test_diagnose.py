"""Pod statuses as kubelets and schedulers write them, and the sentence that a user gets."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator.diagnose import Problem, diagnose

Manifest = dict[str, Any]

WAITING = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container=server"}}


def container(name: str = "server", **status: Any) -> Manifest:
    return {"name": name, "image": "registry.example/openclaw-runtime:0.1.0", "restartCount": 0, **status}


def pod(*containers: Manifest, ready: bool = False, init: tuple[Manifest, ...] = (), **status: Any) -> Manifest:
    conditions = [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": str(ready), "reason": "ContainersNotReady"},
    ]
    return {
        "kind": "Pod",
        "metadata": {"name": "digits-a-5c9f-x7k2p"},
        "spec": {"containers": [{"name": "server"}]},
        "status": {
            "conditions": conditions,
            "initContainerStatuses": list(init),
            "containerStatuses": list(containers),
            **status,
        },
    }


def ended(code: int = 1, *, message: str = "", reason: str = "Error") -> Manifest:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def crashed(code: int = 1, *, restarts: int = 3, name: str = "server", **ending: str) -> Manifest:
    return container(name, state=WAITING, lastState=ended(code, **ending), restartCount=restarts)


def said(reason: str, message: str) -> str:
    return json.dumps({"reason": reason, "message": message}) + "\n"


def limited(limit: str, *containers: Manifest, init: tuple[Manifest, ...] = ()) -> Manifest:
    whole = pod(*containers, init=init)
    return {**whole, "spec": {"containers": [{"name": "server", "resources": {"limits": {"memory": limit}}}]}}


UNSCHEDULABLE = [
    {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient memory.",
    }
]

PROBLEMS = {
    "image that is not there": (
        pod(
            container(
                state={"waiting": {"reason": "ErrImagePull", "message": "manifest for runtime:9 not found"}},
            )
        ),
        "ImagePullFailed",
        "image registry.example/openclaw-runtime:0.1.0 cannot be pulled: manifest for runtime:9 not found",
    ),
    "image that is not there, between two attempts": (
        pod(container(state={"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}})),
        "ImagePullFailed",
        "cannot be pulled: Back-off pulling image",
    ),
    "image with a name that is none": (
        pod(container(state={"waiting": {"reason": "InvalidImageName"}})),
        "ImagePullFailed",
        "cannot be pulled: InvalidImageName",
    ),
    "secret that is missing": (
        pod(
            container(
                state={"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "bucket" not found'}}
            )
        ),
        "ContainerConfigError",
        'the container cannot be created: secret "bucket" not found',
    ),
    "command that is missing": (
        pod(container(state={"waiting": {"reason": "RunContainerError", "message": "exec openclaw: no such file"}})),
        "ContainerConfigError",
        "exec openclaw: no such file",
    ),
    "model that is missing": (
        pod(crashed(78, message=said("ModelNotFound", "there is nothing at s3://models/digits.onnx"))),
        "ModelNotFound",
        "there is nothing at s3://models/digits.onnx",
    ),
    "model that is missing, while the server starts anew": (
        pod(
            container(
                state={"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                lastState=ended(78, message=said("ModelDigestMismatch", "the digest is another")),
                restartCount=1,
            )
        ),
        "ModelDigestMismatch",
        "the digest is another",
    ),
    "model that is missing, the moment the server exits": (
        pod(container(state=ended(75, message=said("ModelDownloadTimeout", "the bucket hangs")))),
        "ModelDownloadTimeout",
        "the bucket hangs",
    ),
    "killed for memory, with a limit": (
        limited("512Mi", crashed(137, reason="OOMKilled")),
        "OutOfMemory",
        "the server needed more than its memory limit of 512Mi and was killed: raise resources.limits.memory",
    ),
    "killed for memory, without a limit": (
        pod(crashed(137, reason="OOMKilled")),
        "OutOfMemory",
        "the server needed more than the memory of its node and was killed: set resources.requests.memory",
    ),
    "crash without a word": (
        pod(crashed(139)),
        "CrashLooping",
        "container server exited with code 139 and was restarted 3 times; "
        "see `kubectl logs digits-a-5c9f-x7k2p --previous`",
    ),
    "crash with last words": (
        pod(crashed(1, message="Traceback ...\nImportError: no onnx\n")),
        "CrashLooping",
        "exited with code 1 and was restarted 3 times; its last words: Traceback ...\nImportError: no onnx",
    ),
    "end without a failure": (pod(crashed(0)), "CrashLooping", "container server exited with code 0"),
    "sidecar that crashes": (
        pod(container(state={"running": {}}), crashed(2, name="sidecar")),
        "CrashLooping",
        "container sidecar exited with code 2",
    ),
    "init container that crashes": (
        pod(container(state={"waiting": {"reason": "PodInitializing"}}), init=(crashed(3, name="fetch"),)),
        "CrashLooping",
        "container fetch exited with code 3",
    ),
    "step before the server whose model is missing": (
        pod(
            container(state={"waiting": {"reason": "PodInitializing"}}),
            init=(crashed(78, message=said("ModelNotFound", "there is nothing at s3://m"), name="optimize"),),
        ),
        "ModelNotFound",
        "there is nothing at s3://m",
    ),
    "step before the server that is killed for its memory again and again": (
        limited(
            "64Mi",
            container(state={"waiting": {"reason": "PodInitializing"}}),
            init=(crashed(137, reason="OOMKilled", restarts=1, name="optimize"),),
        ),
        "OutOfMemory",
        "more than its memory limit of 64Mi",
    ),
    "another container before the server that is killed for its memory": (
        pod(
            container(state={"waiting": {"reason": "PodInitializing"}}),
            init=(crashed(137, reason="OOMKilled", restarts=0, name="fetch"),),
        ),
        "OutOfMemory",
        "was killed",
    ),
    "no room": (
        pod(conditions=UNSCHEDULABLE, containerStatuses=[]),
        "Unschedulable",
        "no node has room for the pod: 0/3 nodes are available: 3 Insufficient memory.",
    ),
    "evicted": (
        pod(reason="Evicted", message="The node was low on resource: memory.", phase="Failed"),
        "Evicted",
        "the node evicted the pod: The node was low on resource: memory.",
    ),
}


@pytest.mark.parametrize(("status", "reason", "sentence"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_a_pod_that_cannot_serve_has_a_reason_and_a_sentence(status: Manifest, reason: str, sentence: str) -> None:
    problem = diagnose([status])
    assert problem is not None
    assert problem.reason == reason
    assert sentence in problem.message


HEALTHY = {
    "ready": pod(container(state={"running": {}}), ready=True),
    "ready after many crashes": pod(container(state={"running": {}}, lastState=ended(1), restartCount=9), ready=True),
    "not looked at by any kubelet": {"kind": "Pod", "metadata": {"name": "x"}},
    "being scheduled": pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]),
    "being created": pod(container(state={"waiting": {"reason": "ContainerCreating"}})),
    "loading its model": pod(container(state={"running": {}})),
    "optimizing its model": pod(
        container(state={"waiting": {"reason": "PodInitializing"}}),
        init=(container("optimize", state={"running": {}}),),
    ),
    "killed for its memory while it optimized, once": pod(
        container(state={"waiting": {"reason": "PodInitializing"}}),
        init=(crashed(137, reason="OOMKilled", restarts=0, name="optimize"),),
    ),
    "passing the model on after that": pod(
        container(state={"waiting": {"reason": "PodInitializing"}}),
        init=(container("optimize", state={"running": {}}, lastState=ended(137, reason="OOMKilled"), restartCount=1),),
    ),
    "optimized, with last words that look like a failure's": pod(
        container(state={"running": {}}),
        init=(container("optimize", state=ended(0, reason="Completed", message=said("Fine", "it is fine"))),),
    ),
    "initialised": pod(
        container(state={"running": {}}), init=(container("fetch", state=ended(0, reason="Completed")),)
    ),
}


@pytest.mark.parametrize("status", HEALTHY.values(), ids=HEALTHY.keys())
def test_a_pod_on_its_way_has_no_problem(status: Manifest) -> None:
    assert diagnose([status]) is None


def test_the_first_problem_is_told_whatever_stands_before_it() -> None:
    healthy = HEALTHY["loading its model"]
    problems = [PROBLEMS["no room"][0], PROBLEMS["evicted"][0]]
    assert diagnose([healthy, *problems]) == diagnose(problems[:1])
    assert diagnose([]) is None


@pytest.mark.parametrize(
    "message",
    [
        '{"reason": "Model',
        '{"reason": "ModelNotFound"}',
        '["ModelNotFound", "sentence"]',
        '"ModelNotFound"',
        "3",
        "null",
        '{"reason": null, "message": "x"}',
        '{"reason": "two words", "message": "x"}',
        '{"reason": "' + "A" * 2000 + '", "message": "x"}',
        '{"reason": "ModelNotFound", "message": {"text": "x"}}',
        "[" * 4096,
    ],
)
def test_what_is_no_report_of_the_server_is_shown_as_last_words(message: str) -> None:
    problem = diagnose([pod(crashed(1, message=message))])
    assert problem is not None
    assert problem.reason == "CrashLooping"
    assert problem.message.endswith(message[-400:])


@given(message=st.text(max_size=200) | st.recursive(st.none() | st.text(), lambda x: st.lists(x)).map(json.dumps))
def test_whatever_a_container_leaves_behind_becomes_a_reason_fit_for_a_condition(message: str) -> None:
    problem = diagnose([pod(crashed(1, message=message))])
    assert isinstance(problem, Problem)
    assert problem.reason.isidentifier()
    assert len(problem.message) < 5000
