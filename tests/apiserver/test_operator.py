"""The operator on a real API server, under the chart's rights, with nodes on which pods become Ready by themselves."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
from testcluster import ControlPlane
from testcluster.waiting import until

from support import services
from support.operator import RELEASE, Operator, running

pytestmark = pytest.mark.usefixtures("definition", "fake_nodes")

QUIET_SECONDS = 60


@pytest.fixture
async def operator(control_plane: ControlPlane, namespace: str) -> AsyncIterator[Operator]:
    """An operator that watches the test's namespace alone."""
    async with running(Operator(control_plane, namespace=namespace)) as process:
        yield process


async def test_a_service_of_four_lines_becomes_ready_with_everything_it_owns(
    control_plane: ControlPlane, namespace: str, operator: Operator
) -> None:
    await services.apply(control_plane, namespace, services.manifest("digits"))
    await services.until_ready(control_plane, namespace)
    await services.until_complete(control_plane, namespace, "digits")
    service = await services.get(control_plane, namespace, "claw", "digits")
    assert service["status"]["url"] == f"http://digits.{namespace}.svc"
    assert service["status"]["readyReplicas"] == 1
    assert service["status"]["traffic"] == [
        {"slot": "a", "revision": service["status"]["revision"], "percent": 100},
    ]
    assert service["metadata"].keys().isdisjoint({"finalizers"})
    ours = "--field-selector=involvedObject.kind=InferenceService"
    events = await control_plane.kubectl("get", "events", ours, "--namespace", namespace, "--output=json")
    assert [each["reason"] for each in json.loads(events)["items"]] == ["InferenceAnswered"]


async def test_its_rights_are_enough_and_none_is_left_unused(
    control_plane: ControlPlane, namespace: str, operator: Operator
) -> None:
    await services.apply(control_plane, namespace, services.manifest("digits"))
    await services.until_ready(control_plane, namespace)
    await services.until_complete(control_plane, namespace, "digits")
    # A service of which a child vanishes is asked whether it still lives.
    await control_plane.kubectl("delete", "serviceaccount", "digits", "--namespace", namespace)
    await services.until_complete(control_plane, namespace, "digits")
    # Every kind is deleted at some time: the autoscaler and the budget by a suspension, ...
    await services.apply(control_plane, namespace, services.manifest("digits", {**services.LEAST, "suspend": True}))
    await services.until_reason(control_plane, namespace, "digits", reason="Suspended")
    rules = await operator.rules()
    await operator.stop()

    async def asked() -> set[tuple[str, str, str]]:
        return {(each.group, each.resource, each.verb) for each in operator.requests()}

    async def watches_ended() -> bool:
        return ("", "pods", "watch") in await asked()

    await until(watches_ended, "the watches have ended, and so are logged", timeout=30)
    assert [each for each in operator.requests() if each.status == 403] == []
    granted = {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    # ... the others only when a revision leaves the history, or a kind is no longer wanted: any of them could be.
    created_by_apply = {right for right in granted if right[2] in {"create", "delete"} and right[1] != "events"}
    assert granted - created_by_apply - await asked() == set()
    assert {verb for _, _, verb in granted} <= {"get", "list", "watch", "create", "update", "patch", "delete"}
    assert not any("*" in right or "secrets" in right for right in granted)


async def test_kubectl_scale_on_an_autoscaled_deployment_is_not_fought(
    control_plane: ControlPlane, namespace: str, operator: Operator
) -> None:
    await services.apply(control_plane, namespace, services.manifest("digits"))
    await services.until_ready(control_plane, namespace)
    await control_plane.kubectl("scale", "deployment/digits-a", "--replicas=3", "--namespace", namespace)

    async def scaled() -> bool:
        service = await services.get(control_plane, namespace, "claw", "digits")
        return bool(service["status"].get("readyReplicas") == 3)

    await until(scaled, "three pods are ready", timeout=30)
    # A change that applies the Deployment anew must leave the number alone too.
    changed = {**services.LEAST, "runtime": {"env": [{"name": "A", "value": "1"}]}}
    await services.apply(control_plane, namespace, services.manifest("digits", changed))
    await services.until_ready(control_plane, namespace)
    deployment = await services.get(control_plane, namespace, "deployment", "digits-a")
    assert deployment["spec"]["replicas"] == 3


async def test_a_fixed_number_of_replicas_is_kept(
    control_plane: ControlPlane, namespace: str, operator: Operator
) -> None:
    fixed = {**services.LEAST, "scaling": {"minReplicas": 2, "maxReplicas": 2}}
    await services.apply(control_plane, namespace, services.manifest("digits", fixed))
    await services.until_ready(control_plane, namespace)
    await control_plane.kubectl("scale", "deployment/digits-a", "--replicas=1", "--namespace", namespace)

    async def restored() -> bool:
        return bool((await services.get(control_plane, namespace, "deployment", "digits-a"))["spec"]["replicas"] == 2)

    await until(restored, "the Deployment has two replicas again", timeout=30)


@pytest.mark.parametrize("kind", ["deployment", "service", "serviceaccount", "configmap", "hpa", "pdb"])
async def test_a_child_that_somebody_deletes_comes_back(
    control_plane: ControlPlane, namespace: str, operator: Operator, kind: str
) -> None:
    await services.apply(control_plane, namespace, services.manifest("digits"))
    await services.until_ready(control_plane, namespace)
    await services.until_complete(control_plane, namespace, "digits")
    selector = ("--selector", "openclaw.io/service=digits", "--namespace", namespace)
    before = await control_plane.kubectl("get", kind, *selector, "--output=jsonpath={.items[*].metadata.uid}")
    await control_plane.kubectl("delete", kind, *selector)

    async def back() -> bool:
        after = await control_plane.kubectl("get", kind, *selector, "--output=jsonpath={.items[*].metadata.uid}")
        return bool(after) and after != before

    await until(back, f"the {kind} is back", timeout=30)


async def test_what_others_write_into_a_child_is_left_alone_and_what_is_ours_is_restored(
    control_plane: ControlPlane, namespace: str, operator: Operator
) -> None:
    await services.apply(control_plane, namespace, services.manifest("digits"))
    await services.until_ready(control_plane, namespace)
    await control_plane.kubectl("annotate", "service/digits", "team=vision", "--namespace", namespace)
    patch = '{"spec":{"selector":{"openclaw.io/service":"somebody-else"}}}'
    await control_plane.kubectl("patch", "service/digits", "--patch", patch, "--namespace", namespace)

    async def restored() -> bool:
        service = await services.get(control_plane, namespace, "service", "digits")
        return bool(service["spec"]["selector"]["openclaw.io/service"] == "digits")

    await until(restored, "the selector is ours again", timeout=30)
    service = await services.get(control_plane, namespace, "service", "digits")
    assert service["metadata"]["annotations"]["team"] == "vision"


async def test_what_the_api_server_refuses_becomes_a_condition_and_the_old_pods_stay(
    control_plane: ControlPlane, namespace: str, operator: Operator
) -> None:
    await services.apply(control_plane, namespace, services.manifest("digits"))
    await services.until_ready(control_plane, namespace)
    bad = {**services.LEAST, "podTemplate": {"spec": {"restartPolicy": "Sometimes"}}}
    await services.apply(control_plane, namespace, services.manifest("digits", bad))
    message = await services.until_reason(control_plane, namespace, "digits", reason="Rejected")
    assert "restartPolicy" in message
    assert "of an earlier revision keeps serving" in message
    await services.apply(control_plane, namespace, services.manifest("digits"))
    await services.until_ready(control_plane, namespace)


async def test_a_deleted_service_leaves_nothing_even_while_the_operator_is_down(
    control_plane: ControlPlane, namespace: str, operator: Operator
) -> None:
    await services.apply(control_plane, namespace, services.manifest("one"), services.manifest("two"))
    await services.until_ready(control_plane, namespace, count=2)

    async def gone(name: str) -> bool:
        return await services.children(control_plane, namespace, name) == {}

    await control_plane.kubectl("delete", "claw/one", "--namespace", namespace)
    await until(lambda: gone("one"), "nothing is left of one", timeout=30)
    await operator.kill()
    await control_plane.kubectl("delete", "claw/two", "--namespace", namespace)
    await until(lambda: gone("two"), "nothing is left of two", timeout=30)


@pytest.mark.timeout(300)
async def test_killed_after_any_write_and_restarted_it_reaches_the_same_end(
    control_plane: ControlPlane, namespace: str, operator: Operator
) -> None:
    for writes in range(1, 10):
        await until(operator.leads, "it leads", timeout=30)
        mark = control_plane.audit.mark()
        name = f"killed-{writes}"
        await services.apply(control_plane, namespace, services.manifest(name))

        async def written(mark: int = mark, writes: int = writes) -> bool:
            return operator.writes(since=mark).total() >= writes

        await until(written, f"it has written {writes} times", timeout=30, interval=0.005)
        await operator.kill()
        # Only the last one has to wait, below, until the Lease of the one that was killed runs out.
        await control_plane.kubectl("delete", f"lease/{RELEASE}", "--namespace", namespace)
        await operator.start()
    await services.until_ready(control_plane, namespace, count=9)
    await operator.until_quiet()
    for writes in range(1, 10):
        assert len(await services.children(control_plane, namespace, f"killed-{writes}")) == 7
    mark = control_plane.audit.mark()
    await operator.kill()
    await operator.start()
    await operator.until_quiet()
    assert operator.writes(since=mark) == {}


async def test_of_two_replicas_only_the_holder_of_the_lease_writes(
    control_plane: ControlPlane, namespace: str, operator: Operator
) -> None:
    await until(operator.leads, "the first leads", timeout=30)
    async with running(Operator(control_plane, namespace=namespace)) as standby:
        await services.apply(control_plane, namespace, services.manifest("digits"))
        await services.until_ready(control_plane, namespace)
        assert not await standby.leads()
        stopping = time.monotonic()
        assert await operator.stop() == 0
        await until(standby.leads, "the second leads", timeout=30)
        # A replica that stops in good order gives the Lease back: nobody has to wait for it to run out.
        assert time.monotonic() - stopping < 30
        await services.apply(control_plane, namespace, services.manifest("more"))
        await services.until_ready(control_plane, namespace, count=2)


async def test_an_operator_with_another_image_and_other_defaults_restarts_no_pod(
    control_plane: ControlPlane, namespace: str, operator: Operator
) -> None:
    await services.apply(control_plane, namespace, services.manifest("digits"))
    await services.until_ready(control_plane, namespace)
    await services.until_complete(control_plane, namespace, "digits")
    before = await services.get(control_plane, namespace, "deployment", "digits-a")
    await operator.stop()
    mark = control_plane.audit.mark()
    newer = Operator(
        control_plane, namespace=namespace, runtime_image="openclaw-runtime:9", default_cpu="20m", default_memory="32Mi"
    )
    async with running(newer):
        await newer.until_quiet()
        after = await services.get(control_plane, namespace, "deployment", "digits-a")
        assert after["spec"] == before["spec"]
        assert newer.writes(since=mark) == {}


@pytest.mark.timeout(600)
async def test_nothing_is_written_while_nothing_changes(
    control_plane: ControlPlane, namespace: str, another_namespace: str, operator: Operator
) -> None:
    """Neither for one service nor, by another operator that sees the whole cluster, for 200 more."""
    crowd = Operator(control_plane, namespace=another_namespace, cluster_wide=True)
    await _come_to_rest(operator, count=1)
    async with running(crowd):
        await _come_to_rest(crowd, count=200)
        mark = control_plane.audit.mark()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_first_write(operator, crowd, since=mark), QUIET_SECONDS)
        for each in (operator, crowd):
            assert each.writes(since=mark) == {}
            assert await each.leads()
        writes = [each for each in crowd.requests() if each.is_write]
        assert len(writes) / 200 <= 10
        mark = control_plane.audit.mark()
        await crowd.kill()
        await crowd.start()
        await crowd.until_quiet()
        assert crowd.writes(since=mark) == {}
        assert (await crowd.metrics())['openclaw_operator_reconciles_total{result="quiet"}'] >= 200


async def _come_to_rest(operator: Operator, *, count: int) -> None:
    """Has so many services in the operator's namespace, and waits until it is done with them."""
    names = [f"s{number}" for number in range(count)]
    await services.apply(operator.plane, operator.namespace, *(services.manifest(name) for name in names))
    await services.until_ready(operator.plane, operator.namespace, count=count, timeout=240)
    await operator.until_quiet()


async def _first_write(*operators: Operator, since: int) -> None:
    """Returns once one of them has written something."""

    async def wrote() -> bool:
        return any(each.writes(since=since).total() for each in operators)

    await until(wrote, "an operator writes", timeout=QUIET_SECONDS * 2, interval=1)
