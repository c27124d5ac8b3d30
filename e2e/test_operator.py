"""The operator itself, as helm installs, upgrades and removes it."""

import json

import pytest_asyncio

from world import release
from world.images import OPERATOR, RUNTIME, tag
from world.namespace import Namespace, inference_service
from world.release import Release

NAMES = ("one", "two")
MODEL = "s3://models/digits.onnx"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def services(namespace: Namespace) -> Namespace:
    """The namespace with two services that name no image, Ready."""
    await namespace.apply(*(inference_service(name, MODEL) for name in NAMES))
    await namespace.until_ready(*NAMES)
    return namespace


async def test_the_operator_runs_in_a_namespace_that_admits_only_restricted_pods(operator: Release) -> None:
    itself = json.loads(await operator.kubectl("get", "namespace", release.NAMESPACE, "--output=json"))
    assert itself["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    (pod,) = await operator.pods()
    (container,) = pod["status"]["containerStatuses"]
    assert (container["ready"], container["restartCount"], container["image"]) == (True, 0, str(OPERATOR))


async def test_an_upgraded_operator_with_other_defaults_restarts_no_pod(operator: Release, services: Namespace) -> None:
    before = await _pods(services)
    newer = await tag(services.node, OPERATOR, as_tag="e2e-newer")
    runtime = await tag(services.node, RUNTIME, as_tag="e2e-newer")
    await operator.upgrade(
        {
            "image.tag": newer.tag,
            "runtime.image.tag": runtime.tag,
            "runtime.image.pullPolicy": "Never",
            "runtime.requests.memory": "96Mi",
        }
    )
    (pod,) = await operator.pods()
    assert pod["spec"]["containers"][0]["image"] == str(newer)

    # Once it has brought up a service of its own, with its own defaults, it has looked at the others too.
    await services.apply(inference_service("three", MODEL))
    await services.until_ready("three")
    assert await _images(services, "three") == {str(runtime)}
    assert await _pods(services) == before

    # And those are still looked after: a change is rolled out, on the image that they had.
    await services.patch("one", {"runtime": {"env": [{"name": "CHANGED", "value": "1"}]}})
    await services.until_ready("one")
    assert await _images(services, "one") == {str(RUNTIME)}


async def test_services_outlive_an_operator_that_is_uninstalled_and_obey_the_next_one(
    operator: Release, services: Namespace
) -> None:
    before = await _pods(services)
    await operator.uninstall()
    try:
        left = await operator.kubectl("get", "all,roles,rolebindings,serviceaccounts", _OF_THE_CHART, "--output=name")
        assert left == ""
        assert await operator.kubectl("get", "clusterroles,clusterrolebindings", _OF_THE_CHART, "--output=name") == ""
        definition = json.loads(await services.kubectl("get", "crd", "inferenceservices.openclaw.io", "--output=json"))
        assert "deletionTimestamp" not in definition["metadata"]
        assert await _pods(services) == before
    finally:
        await operator.install()
    await services.patch("two", {"scaling": {"minReplicas": 2, "maxReplicas": 2}})
    await services.until_ready("two")
    assert before.items() <= (await _pods(services)).items()


_OF_THE_CHART = "--selector=app.kubernetes.io/part-of=openclaw"


async def _pods(namespace: Namespace) -> dict[str, int]:
    """Restarts of every pod of the two services, by its uid."""
    return {pod.uid: pod.restarts for name in NAMES for pod in await namespace.pods(name) if not pod.leaving}


async def _images(namespace: Namespace, name: str) -> set[str]:
    """Images that a service's Deployment runs."""
    return {await namespace.kubectl("get", "deployment", f"{name}-a", _FIRST_IMAGE)}


_FIRST_IMAGE = "--output=jsonpath={.spec.template.spec.containers[0].image}"
