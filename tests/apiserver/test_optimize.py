"""`spec.runtime.optimize` on a real API server: pods are taken as they are rendered, and their last words are shown."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from testcluster import ControlPlane
from testcluster.waiting import until

from support import services
from support.operator import Operator, running

pytestmark = pytest.mark.usefixtures("definition", "fake_nodes")

OPTIMIZED = {**services.LEAST, "runtime": {"optimize": {"mode": "fp32"}}}
SAID = {
    "outcome": "Optimized",
    "nodeType": "Fast CPU, 2 threads",
    "mode": "fp32",
    "form": "fp32-passes",
    "precision": "fp32",
    "latencyPercent": 83,
    "nodesBefore": 8,
    "nodesAfter": 1,
    "sizePercent": 20,
    "reason": "fp32-passes is kept",
}


@pytest.fixture
async def operator(control_plane: ControlPlane, namespace: str) -> AsyncIterator[Operator]:
    """An operator of this namespace, with a place to share results."""
    settings = {"optimizer_cache_uri": "s3://models/optimized"}
    async with running(Operator(control_plane, namespace=namespace, **settings)) as process:
        yield process


async def test_what_the_step_said_is_shown_and_told_once_and_then_nothing_is_written(
    control_plane: ControlPlane, namespace: str, operator: Operator
) -> None:
    await services.apply(control_plane, namespace, services.manifest("digits", OPTIMIZED))
    await services.until_ready(control_plane, namespace)
    await services.until_complete(control_plane, namespace, "digits")
    (pod,) = (await services.get(control_plane, namespace, "pods"))["items"]
    assert [each["name"] for each in pod["spec"]["initContainers"]] == ["optimize"]
    message = json.dumps({"optimization": {**SAID, "cached": True}})
    moment = pod["metadata"]["creationTimestamp"]
    ended = {"exitCode": 0, "reason": "Completed", "message": message, "startedAt": moment, "finishedAt": moment}
    step = {"name": "optimize", "image": "i", "imageID": "", "ready": True, "restartCount": 0}
    status = {"status": {"initContainerStatuses": [{**step, "state": {"terminated": ended}}]}}
    name = pod["metadata"]["name"]
    await control_plane.kubectl(
        *("patch", "pod", name, "--subresource=status", "--type=merge"),
        *(f"--patch={json.dumps(status)}", "--namespace", namespace),
    )

    async def shown() -> list[Any]:
        service = await services.get(control_plane, namespace, "claw", "digits")
        return list(service["status"].get("model", {}).get("optimization", []))

    assert await until(shown, "the status shows it", timeout=30) == [{**SAID, "pods": 1, "cached": 1}]
    await operator.until_quiet()
    mark = control_plane.audit.mark()
    events = json.loads(await control_plane.kubectl("get", "events", "--namespace", namespace, "--output=json"))
    ours = [each for each in events["items"] if each["involvedObject"]["kind"] == "InferenceService"]
    assert [each["message"] for each in ours if each["reason"] == "Optimized"] == [
        "Fast CPU, 2 threads: fp32-passes is kept"
    ]
    await control_plane.kubectl("annotate", "claw/digits", "looked=at", "--namespace", namespace)
    await operator.until_quiet()
    assert operator.writes(since=mark) == {}


async def test_without_a_place_to_share_results_the_condition_says_what_to_set(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with running(Operator(control_plane, namespace=namespace)):
        await services.apply(control_plane, namespace, services.manifest("digits", OPTIMIZED))
        said = await services.until_reason(control_plane, namespace, "digits", reason="OptimizeCacheMissing")
    assert "set spec.runtime.optimize.cacheUri, as in s3://my-bucket/optimized" in said
