"""What a service is told that cannot be brought up: a reason of its own, soon; and what served before serves on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from world.client import Client
from world.namespace import Namespace, Pod, Service, inference_service
from world.release import USER
from world.store import Store

GOOD = "s3://models/digits.onnx"
TOLD_WITHIN = 60.0  # seconds
STARTUP = {"startup": {"periodSeconds": 1, "failureThreshold": 15}}


@dataclass(frozen=True)
class Case:
    """A change that no pod can be brought up with.

    Attributes:
        reason: Reason that the condition Ready gets.
        says: What its message names.
        restarts: Whether the container is started again and again.
    """

    name: str
    reason: str
    says: str
    model: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    restarts: bool = True

    def __str__(self) -> str:
        return self.name


CASES = (
    Case("missing", "ModelNotFound", "s3://models/absent.onnx", model={"uri": "s3://models/absent.onnx"}),
    Case("other-digest", "ModelDigestMismatch", "0" * 64, model={"sha256": "0" * 64}),
    Case("not-onnx", "ModelInvalid", "text.onnx", model={"uri": "s3://models/text.onnx"}),
    Case("truncated", "ModelInvalid", "half.onnx", model={"uri": "s3://models/half.onnx"}),
    Case("denied", "ModelAccessDenied", "credentials", model={"credentials": {"secretName": "wrong-key"}}),
    Case(
        "hanging",
        "ModelDownloadTimeout",
        GOOD,
        model={"credentials": {"secretName": "hanging-store"}},
        spec={"probes": STARTUP},
    ),
    Case("bad-argument", "ConfigInvalid", "--threads", spec={"runtime": {"args": ["--threads=many"]}}),
    Case("small", "OutOfMemory", "32Mi", spec={"resources": {"limits": {"cpu": "500m", "memory": "32Mi"}}}),
    Case(
        "huge",
        "Unschedulable",
        "Insufficient cpu",
        spec={"resources": {"requests": {"cpu": "100", "memory": "64Mi"}}},
        restarts=False,
    ),
    Case(
        "no-secret",
        "ContainerConfigError",
        "nowhere",
        model={"credentials": {"secretName": "nowhere"}},
        restarts=False,
    ),
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def before(namespace: Namespace, store: Store, digits: Path) -> dict[str, Service]:
    """Every service as it was when it was Ready; since then, each was changed for the worse."""
    model = (digits / "build" / "digits.onnx").read_bytes()
    store.put("text.onnx", b"This is a letter, not a model.\n" * 100)
    store.put("half.onnx", model[: len(model) // 2])
    await namespace.apply(store.secret(name="hanging-store", hangs=True), store.secret(name="wrong-key", key="wrong"))
    await namespace.apply(*(inference_service(case.name, GOOD) for case in CASES))
    await namespace.until_ready(*(case.name for case in CASES))
    good = {case.name: await namespace.service(case.name) for case in CASES}
    await namespace.apply(*(inference_service(case.name, GOOD, model=case.model, **case.spec) for case in CASES))
    return good


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(namespace: Namespace, digits: Path) -> Client:
    started = Client(namespace)
    await started.start(digits)
    return started


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_the_reason_is_told_and_the_earlier_revision_serves_on(
    case: Case, before: dict[str, Service], namespace: Namespace, client: Client
) -> None:
    condition = await namespace.until_not_ready(case.name, case.reason, timeout=TOLD_WITHIN)
    print(condition.message)
    assert case.says in condition.message
    assert "of an earlier revision keep" in condition.message
    assert (await namespace.service(case.name)).condition("Available").status == "True"
    assert await client.answers(await namespace.address(case.name), model=case.name)

    good, bad = await namespace.pods(case.name)
    assert (good.revision, good.ready, good.restarts) == (before[case.name].status["revision"], True, 0)
    assert not bad.ready
    assert bad.restarts <= (bad.restarts_that_backing_off_allows if case.restarts else 0)


async def test_a_cause_that_stays_is_told_once(before: dict[str, Service], namespace: Namespace) -> None:
    """Between two attempts a pod looks as if it were merely starting: that is no news."""
    name = "missing"
    told = await namespace.until_not_ready(name, "ModelNotFound")
    mark = namespace.node.plane.audit.mark()
    (bad,) = [pod for pod in await namespace.pods(name) if not pod.ready]

    def tried_again(pods: list[Pod]) -> bool:
        return any(pod.uid == bad.uid and pod.restarts > bad.restarts for pod in pods)

    await namespace.until_pods(name, tried_again, what="the server was started again")
    assert await namespace.until_not_ready(name, "ModelNotFound") == told
    writes = namespace.node.plane.audit.writes(since=mark, user=USER)
    assert [each for each in writes if each.namespace == namespace.name and each.name == name] == []


async def test_a_model_that_is_uploaded_late_is_served_without_a_further_word(
    namespace: Namespace, store: Store, digits: Path
) -> None:
    await namespace.apply(inference_service("late", "s3://models/late.onnx"))
    condition = await namespace.until_not_ready("late", "ModelNotFound")
    assert "keep serving" not in condition.message
    store.put("late.onnx", digits / "build" / "digits.onnx")
    await namespace.until_ready("late", timeout=90)
