"""A change is rolled out without a request lost, and one that cannot be, is told and harms nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_asyncio

from world.client import Client
from world.images import RUNTIME, Image, tag
from world.namespace import Namespace, Pod, inference_service
from world.store import Store

NAME = "digits"
REPLICAS = 2


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(namespace: Namespace) -> Namespace:
    """The namespace, with the digits served by two pods."""
    scaling = {"minReplicas": REPLICAS, "maxReplicas": REPLICAS}
    await namespace.apply(inference_service(NAME, "s3://models/digits.onnx", scaling=scaling))
    await namespace.until_ready(NAME)
    return namespace


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(served: Namespace, digits: Path) -> Client:
    started = Client(served)
    await started.start(digits)
    return started


@pytest.fixture(scope="module")
def image(digits: Path) -> list[list[int]]:
    """A held-out image."""
    images: list[list[list[int]]] = json.loads((digits / "build" / "held-out.json").read_text())["images"]
    return images[0]


async def test_no_request_fails_while_a_change_is_rolled_out(
    served: Namespace, client: Client, store: Store, *, digits: Path, image: list[list[int]]
) -> None:
    store.put("digits-2.onnx", digits / "build" / "digits.onnx")
    before = (await served.service(NAME)).status["revision"]
    async with client.load(await served.address(NAME), image, model=NAME) as load:
        await served.patch(NAME, {"model": {"uri": "s3://models/digits-2.onnx"}})
        await served.until_ready(NAME, timeout=90)
        after = (await served.service(NAME)).status["revision"]
        await served.until_pods(NAME, _only(after), what="the pods of the old revision are gone")
    print(load)
    assert after != before
    assert load.failures == []
    assert load.sent > 500
    # Both revisions serve the same model: all answers are one.
    assert len(load.answers) == 1


async def test_an_image_that_the_node_lacks_is_told_and_used_as_soon_as_it_is_there(
    served: Namespace, client: Client
) -> None:
    before = (await served.service(NAME)).status["revision"]
    late = Image(RUNTIME.repository, "late")
    await served.patch(NAME, {"runtime": {"image": str(late)}})
    condition = await served.until_not_ready(NAME, "ImagePullFailed")
    print(condition.message)
    assert str(late) in condition.message
    assert f"{REPLICAS} pods of an earlier revision keep serving" in condition.message
    assert [pod.revision for pod in await served.pods(NAME) if pod.ready] == [before] * REPLICAS
    assert await client.answers(await served.address(NAME), model=NAME)

    await tag(served.node, RUNTIME, as_tag=late.tag)
    await served.until_ready(NAME, timeout=90)
    after = (await served.service(NAME)).status["revision"]
    await served.until_pods(NAME, _only(after), what="the pods of the old revision are gone")
    assert after != before


async def test_an_image_that_does_not_exist_is_put_right_by_naming_one_that_does(served: Namespace) -> None:
    before = (await served.service(NAME)).status["revision"]
    await served.patch(NAME, {"runtime": {"image": "localhost/none:1"}})
    await served.until_not_ready(NAME, "ImagePullFailed")
    await served.patch(NAME, {"runtime": {"image": f"{RUNTIME.repository}:late"}})
    await served.until_ready(NAME)
    # It is the revision of before again: its pods were never touched.
    assert (await served.service(NAME)).status["revision"] == before
    await served.until_pods(NAME, _only(before), what="the pod that could not start is gone")


def _only(revision: str) -> Callable[[list[Pod]], bool]:
    """Whether all pods are of `revision` and ready."""
    return lambda pods: [(pod.revision, pod.ready) for pod in pods] == [(revision, True)] * REPLICAS
