"""The digits example, from an object store to the answers of every held-out image, and back on its feet."""

import asyncio
import json
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from testcluster.waiting import until

from support.local_mode import LocalMode
from world.client import Answers, Client, classify_here
from world.images import kill_container
from world.namespace import Namespace, Pod

LEAST_ACCURACY = 0.95
NAME = "digits"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(namespace: Namespace, digits: Path) -> Namespace:
    """The namespace, where the example was applied as it stands and is Ready."""
    await namespace.kubectl("apply", f"--filename={digits / 'cluster.yaml'}")
    await namespace.until_ready(NAME)
    return namespace


@pytest.fixture
def replicas(digits: Path) -> int:
    """Pods that the example asks for."""
    count: int = yaml.safe_load((digits / "cluster.yaml").read_text())["spec"]["scaling"]["minReplicas"]
    return count


async def test_kubectl_get_shows_that_it_is_ready_and_where_it_answers(served: Namespace, replicas: int) -> None:
    table = await served.kubectl("get", "claw")
    print(table)
    columns, row = (line.split() for line in table.splitlines())
    assert columns == ["NAME", "READY", "REASON", "URL", "REPLICAS", "TRAFFIC", "MODEL", "AGE"]
    url = f"http://{NAME}.{served.name}.svc"
    assert row[:-1] == [NAME, "True", "InferenceAnswered", url, str(replicas), "100", "s3://models/digits.onnx"]


async def test_the_status_says_that_every_pod_has_the_model_in_memory(served: Namespace, replicas: int) -> None:
    async def told() -> bool:
        model = (await served.service(NAME)).status.get("model") or {}
        return bool(model.get("tiers") == [{"tier": "packed", "pods": replicas}])

    await until(told, "the status says in which tier the pods have the model", timeout=60)


async def test_another_pod_gets_the_answers_that_local_mode_gives(
    served: Namespace, digits: Path, tmp_path: Path
) -> None:
    url = (await served.service(NAME)).status["url"]
    client = Client(served)
    await client.start(
        digits, hosts={url.removeprefix("http://"): (await served.address(NAME)).removeprefix("http://")}
    )
    in_cluster = await client.classify(url)
    on_this_machine = await _local_answers(tmp_path, digits)
    assert [digit for digit, _ in in_cluster] == [digit for digit, _ in on_this_machine]
    certainties = [probability for _, probability in on_this_machine]
    assert [probability for _, probability in in_cluster] == pytest.approx(certainties, abs=1e-6)

    truth = json.loads((digits / "build" / "held-out.json").read_text())["digits"]
    right = sum(answer == digit for (answer, _), digit in zip(in_cluster, truth, strict=True))
    print(f"{right} of {len(truth)} held-out images are classified right")
    assert len(truth) >= 300
    assert right >= LEAST_ACCURACY * len(truth)


async def test_a_deleted_pod_is_replaced(served: Namespace, replicas: int) -> None:
    lost = (await served.pods(NAME))[0]
    await served.kubectl("delete", "pod", lost.name, "--wait=false")

    def healed(pods: list[Pod]) -> bool:
        return lost.uid not in {pod.uid for pod in pods} and [pod.ready for pod in pods] == [True] * replicas

    await served.until_pods(NAME, healed, what=f"{lost.name} is replaced")
    await served.until_ready(NAME)


async def test_a_killed_server_is_started_again_in_its_pod(served: Namespace) -> None:
    before = await served.pods(NAME)
    hurt = before[0]
    await kill_container(served.node, hurt.container)

    def restarted(pods: list[Pod]) -> bool:
        return any(pod.uid == hurt.uid and pod.ready and pod.restarts == hurt.restarts + 1 for pod in pods)

    after = await served.until_pods(NAME, restarted, what=f"the server in {hurt.name} answers again")
    assert {pod.uid for pod in after} == {pod.uid for pod in before}
    await served.until_ready(NAME)


async def _local_answers(folder: Path, digits: Path) -> Answers:
    """The answers of the example in local mode."""
    local = LocalMode(folder)
    try:
        brought_up = await asyncio.to_thread(local.up, digits / "service.yaml")
        assert brought_up.returncode == 0, brought_up.stderr
        return await classify_here(f"http://127.0.0.1:{local.port}/default/{NAME}", digits)
    finally:
        await asyncio.to_thread(local.run, "down")
