"""A model is optimized once for all pods, before they serve it; and what goes wrong with that stops no service."""

import json
from typing import Any

import numpy as np
import onnx
import pytest
import pytest_asyncio
from onnx import TensorProto, helper, numpy_helper

from world.images import Image
from world.namespace import Namespace, Pod, Service, inference_service
from world.store import Store

WIDTH, LAYERS = 256, 8
TWO = {"minReplicas": 2, "maxReplicas": 2}

_ASK = """
import json, urllib.request
data = {{"name": "x", "shape": [1, {width}], "datatype": "FP32", "data": [1.0] * {width}}}
request = urllib.request.Request({url!r}, json.dumps({{"inputs": [data]}}).encode())
print(json.dumps(json.load(urllib.request.urlopen(request, timeout=10))["outputs"][0]["data"]))
"""


def weights() -> list[np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    return [(random.standard_normal((WIDTH, WIDTH)) * WIDTH**-0.5).astype(np.float32) for _ in range(LAYERS)]


def chain() -> bytes:
    """Products with nothing between them: one does the same, and onnxruntime runs them all."""
    nodes = [helper.make_node("MatMul", [f"x{i}" if i else "x", f"w{i}"], [f"x{i + 1}"]) for i in range(LAYERS)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("x", f"x{LAYERS}")]
    given = [numpy_helper.from_array(array, f"w{i}") for i, array in enumerate(weights())]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], given)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def expected() -> np.ndarray[Any, Any]:
    """What the model answers to ones, in double precision."""
    answer = np.ones((1, WIDTH))
    for each in weights():
        answer = answer @ each.astype(np.float64)
    return answer[0]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(namespace: Namespace, store: Store, optimizer: Image) -> Namespace:
    """The namespace, where two pods serve an optimized model."""
    store.put("chain.onnx", chain())
    runtime = {"threads": 1, "optimize": {"mode": "fp32"}}
    await namespace.apply(inference_service("chain", "s3://models/chain.onnx", runtime=runtime, scaling=TWO))
    await namespace.until_ready("chain", timeout=120)
    return namespace


def optimization(service: Service) -> list[dict[str, Any]]:
    return list(service.status["model"]["optimization"])


@pytest.mark.timeout(900)  # the first run builds the image
async def test_of_two_pods_one_optimizes_and_the_status_shows_what_came_of_it(served: Namespace, store: Store) -> None:
    (entry,) = optimization(await served.service("chain"))
    print(json.dumps(entry, indent=2))
    assert (entry["outcome"], entry["mode"], entry["precision"]) == ("Optimized", "fp32", "fp32")
    assert (entry["pods"], entry["cached"]) == (2, 1)
    assert entry["nodesAfter"] < entry["nodesBefore"] == LAYERS
    assert entry["nodeType"].endswith("1 thread")
    assert len(store.keys("optimized")) == 1


async def test_pods_answer_with_the_form_under_the_models_name(served: Namespace) -> None:
    for pod in await served.pods("chain"):
        url = "http://127.0.0.1:8080/v2/models/chain/infer"
        said = await served.kubectl("exec", pod.name, "--", "python", "-c", _ASK.format(width=WIDTH, url=url))
        assert json.loads(said) == pytest.approx(expected().tolist(), rel=1e-3, abs=1e-4)
        assert "chain is served in its optimized form" in await served.kubectl("logs", pod.name)


async def test_the_outcome_is_told_as_an_event(served: Namespace) -> None:
    reasons = await served.until_event("chain", "Optimized")
    assert reasons.count("Optimized") == 1


def _three_ready(pods: list[Pod]) -> bool:
    return [pod.ready for pod in pods] == [True] * 3


async def test_a_further_pod_finds_the_result(served: Namespace) -> None:
    await served.patch("chain", {"scaling": {"minReplicas": 3, "maxReplicas": 3}})
    await served.until_pods("chain", _three_ready, what="a third pod is ready")
    await served.until_ready("chain")
    (entry,) = optimization(await served.service("chain"))
    assert (entry["pods"], entry["cached"]) == (3, 2)


async def test_an_optimizer_that_is_killed_for_its_memory_costs_only_the_gain(served: Namespace) -> None:
    """The kernel kills the whole container; started again, it passes the model on as it is."""
    small = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "72Mi"}}
    # The server needs more than the step is given here.
    template = {"spec": {"initContainers": [{"name": "optimize", "resources": small}]}}
    # With other options the result of before is none for it.
    runtime = {"threads": 1, "optimize": {"mode": "fp32", "timeoutSeconds": 120}}
    service = inference_service("starved", "s3://models/chain.onnx", runtime=runtime, podTemplate=template)
    await served.apply(service)
    await served.until_ready("starved", timeout=120)
    (entry,) = optimization(await served.service("starved"))
    print(json.dumps(entry, indent=2))
    assert entry["outcome"] == "Failed"
    assert "most likely for its memory" in entry["reason"]
