"""A deleted service leaves nothing behind, whether or not the operator is there to see it."""

import time

import pytest
from testcluster.waiting import until

from world.namespace import POLL, Namespace, inference_service
from world.release import Release

GONE_WITHIN = 30.0  # seconds


@pytest.mark.parametrize("operators", [1, 0], ids=["with-the-operator", "while-the-operator-is-down"])
async def test_nothing_of_a_deleted_service_is_left(namespace: Namespace, operator: Release, operators: int) -> None:
    name = f"short-lived-{operators}"
    scaling = {"minReplicas": 1, "maxReplicas": 3}
    await namespace.apply(inference_service(name, "s3://models/digits.onnx", scaling=scaling))
    await namespace.until_ready(name)

    async def complete() -> bool:
        kinds = {child.partition("/")[0].partition(".")[0] for child in await namespace.leftovers(name)}
        return kinds == {*OWNED, "pod", "replicaset", "endpointslice"}

    await until(complete, f"{name} owns a child of every kind", timeout=GONE_WITHIN, interval=POLL)
    await operator.scale(operators)
    try:
        await namespace.kubectl("delete", "claw", name, "--wait=false")
        began = time.monotonic()

        async def nothing_left() -> bool:
            return not await namespace.leftovers(name)

        await until(nothing_left, f"nothing of {name} is left", timeout=GONE_WITHIN, interval=POLL)
        print(f"nothing of {name} was left after {time.monotonic() - began:.1f} s")
    finally:
        await operator.scale(1)


OWNED = {
    "deployment",
    "service",
    "configmap",
    "serviceaccount",
    "controllerrevision",
    "horizontalpodautoscaler",
    "poddisruptionbudget",
}
"""What the operator makes of a service."""
