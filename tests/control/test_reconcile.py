"""The operator and a cluster that runs pods: what users, and others, do to it and what comes of it."""

import asyncio
from typing import Any

import pytest

from openclaw_operator.config import Config
from openclaw_operator.names import OWNED_KINDS, Manifest
from simulation import services
from simulation.faults import LATENCY
from simulation.kubelet import deployment_ref, image_of, unpullable
from simulation.services import having
from simulation.world import KEY, World, simulate


@pytest.mark.parametrize("spec", [services.LEAST, services.FULL], ids=["least", "full"])
def test_a_service_comes_up_and_then_nothing_is_written(spec: Manifest) -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit(spec)
        await world.settle(60)
        assert world.ready()[:2] == ("True", "InferenceAnswered")
        assert {each["kind"] for each in world.objects()} == {
            "InferenceService",
            "Pod",
            *(kind.name for kind in OWNED_KINDS),
        }
        status = world.service["status"]
        assert status["url"] == "http://digits.vision.svc"
        assert status["readyReplicas"] == status["replicas"] == spec.get("scaling", {}).get("minReplicas", 1)
        assert status["traffic"] == [{"slot": "a", "revision": status["revision"], "percent": 100}]
        assert status["observedGeneration"] == 1
        assert await world.quiet() == []

    simulate(story)


def test_a_service_comes_up_with_few_writes() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle()
        applied = [write for write in world.writes if write.startswith("apply")]
        assert len(applied) == len(set(applied)) == 7
        assert len(world.writes) <= 10

    simulate(story)


def test_good_news_is_told_once_the_service_has_it_and_bad_news_at_once() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle(60)
        assert [(event.type, event.reason) for _, event in world.cluster.events] == [("Normal", "InferenceAnswered")]
        ready = next(each for each in world.service["status"]["conditions"] if each["type"] == "Ready")
        assert world.cluster.events[0][1].at == ready["lastTransitionTime"]
        assert world.writes.index("status vision/digits") < world.writes.index("event InferenceAnswered")

    simulate(story)


def test_a_service_that_was_there_before_the_operator_comes_up_too() -> None:
    async def story(world: World) -> None:
        await world.submit()
        world.start()
        await world.settle(60)
        assert world.ready()[0] == "True"

    simulate(story)


@pytest.mark.parametrize("kind", [kind.name for kind in OWNED_KINDS])
def test_a_child_that_is_deleted_comes_back(kind: str) -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle(60)
        before = world.state()
        await world.remove(kind)
        await world.settle(60)
        assert world.state() == before
        assert world.ready()[0] == "True"
        assert await world.quiet() == []

    simulate(story)


EDITS: dict[str, Any] = {
    "Deployment": lambda child: child["spec"]["template"]["spec"]["containers"][0].update(image="evil:1"),
    "Service": lambda child: child["spec"]["selector"].update({"openclaw.io/service": "another"}),
    "HorizontalPodAutoscaler": lambda child: child["spec"].update(maxReplicas=100),
    "PodDisruptionBudget": lambda child: child["spec"].update(maxUnavailable=7),
    "ServiceAccount": lambda child: child.update(automountServiceAccountToken=True),
}


@pytest.mark.parametrize(("kind", "edit"), EDITS.items(), ids=EDITS.keys())
def test_a_child_that_is_edited_is_set_back(kind: str, edit: Any) -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle(60)
        before = world.state()
        await world.edit(kind, edit)
        assert world.state() != before
        await world.settle(60)
        assert world.state() == before
        assert await world.quiet() == []

    simulate(story)


def test_fields_of_others_stay() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle(60)
        await world.edit("Deployment", lambda child: child["metadata"]["annotations"].update(note="mine"))
        await world.edit("Service", lambda child: child["spec"].update(sessionAffinity="ClientIP"))
        assert await world.quiet() == []
        await world.submit(having(runtime={"workers": 2}))
        await world.settle(60)
        (address,) = world.cluster.all("Service")
        assert world.deployment["metadata"]["annotations"]["note"] == "mine"
        assert address["spec"]["sessionAffinity"] == "ClientIP"
        assert world.ready()[0] == "True"

    simulate(story)


def test_a_change_rolls_the_pods_and_keeps_serving() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit(having(scaling={"minReplicas": 3}))
        await world.settle(60)
        before = world.service["status"]["revision"]
        await world.submit(having(scaling={"minReplicas": 3}, runtime={"image": "mine:2"}))
        for _ in range(100):
            await world.settle(0.5)
            assert world.condition("Available")[0] == "True"
        assert world.ready()[0] == "True"
        assert world.service["status"]["revision"] != before
        assert [image_of(pod) for pod in world.pods()] == ["mine:2"] * 3
        assert len(world.names("ControllerRevision")) == 2

    simulate(story)


def test_ready_is_never_true_for_a_generation_that_was_not_served() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle(60)
        await world.submit(having(runtime={"image": "mine:2"}))
        for _ in range(200):
            status = world.service["status"]
            if status["observedGeneration"] == 2 and world.ready()[0] == "True":
                assert "mine:2" in {image_of(pod) for pod in world.pods() if pod.get("status")}
            await world.settle(0.05)
        assert (world.service["status"]["observedGeneration"], world.ready()[0]) == (2, "True")

    simulate(story)


def test_a_suspended_service_stops_and_a_resumed_one_serves_again() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle(60)
        before = world.state()
        await world.submit(having(suspend=True))
        await world.settle(60)
        assert world.ready()[:2] == ("False", "Suspended")
        assert world.pods() == []
        assert world.names("HorizontalPodAutoscaler") == world.names("PodDisruptionBudget") == []
        assert await world.quiet() == []
        await world.submit()
        await world.settle(60)
        assert world.state() == before
        assert await world.quiet() == []

    simulate(story)


@pytest.mark.parametrize("manager", ["kubectl", "kube-controller-manager"])
def test_a_number_of_replicas_that_somebody_set_is_not_fought(manager: str) -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle(60)
        world.cluster.scale(deployment_ref(), 3, manager=manager)
        assert set(await world.quiet()) == {f"status {KEY}"}, "only counts change, and Ready stays True"
        assert world.service["status"]["replicas"] == len(world.pods()) == 3
        await world.submit(having(runtime={"workers": 2}))
        for _ in range(100):
            await world.settle(0.5)
            assert len(world.pods()) >= 3
        await world.submit(having(scaling={"minReplicas": 2, "maxReplicas": 2}))
        await world.settle(60)
        assert len(world.pods()) == 2

    simulate(story)


def test_a_deleted_service_leaves_nothing() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle(60)
        await world.withdraw()
        await world.settle(30)
        assert world.objects() == []
        assert await world.quiet() == []

    simulate(story)


def test_a_service_deleted_while_the_operator_is_down_leaves_nothing() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle(60)
        await world.operator.stop()
        await world.withdraw()
        await world.settle(30)
        assert world.objects() == []
        world.start()
        assert await world.quiet() == []

    simulate(story)


def test_a_service_whose_deletion_a_watch_lost_is_not_given_children_again_and_again() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle(60)
        world.operator.watch.lossy = True
        await world.withdraw()
        world.operator.watch.lossy = False
        world.operator.watch.repeat([world.history.events[-1]])  # a child that went with its service
        before = len(world.writes)
        await world.settle()
        assert world.objects() == []
        assert world.writes[before:] == []

    simulate(story)


def test_a_service_whose_deletion_is_lost_while_it_comes_up_leaves_nothing() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        world.operator.watch.lossy = True
        await world.settle(LATENCY)
        await world.withdraw()
        world.operator.watch.lossy = False
        await world.settle()
        assert world.objects() == []
        assert len(world.writes) <= 2 * len(OWNED_KINDS)

    simulate(story)


@pytest.mark.parametrize("pause", [0.0, 0.02, 0.5, 30.0])
def test_a_service_made_anew_under_its_old_name_comes_up_with_children_of_its_own(pause: float) -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle(60)
        before = world.service["metadata"]["uid"]
        await world.withdraw()
        await world.settle(pause)
        await world.submit(having(runtime={"image": "mine:2"}))
        await world.settle(60)
        assert world.ready()[0] == "True"
        assert world.service["metadata"]["uid"] != before
        owners = {
            each["metadata"]["ownerReferences"][0]["uid"]
            for each in world.objects()
            if each["kind"] not in {"InferenceService", "Pod"}
        }
        assert owners == {world.service["metadata"]["uid"]}
        assert {image_of(pod) for pod in world.pods()} == {"mine:2"}
        assert await world.quiet() == []

    simulate(story)


async def change(world: World) -> None:
    await world.submit(having(runtime={"image": "mine:2"}))


async def make_anew(world: World) -> None:
    await world.withdraw()
    await world.submit(having(runtime={"image": "mine:2"}))


@pytest.mark.parametrize("meanwhile", [change, make_anew])
def test_a_change_made_while_the_status_is_written_is_not_lost(meanwhile: Any) -> None:
    async def story(world: World) -> None:
        write_status = world.cluster.update_status

        async def write_the_last_word_after_the_change(service: Manifest, status: Manifest) -> Manifest:
            if status["conditions"][0]["status"] == "True":
                world.cluster.update_status = write_status  # type: ignore[method-assign] - once, in a write
                await meanwhile(world)
            return await write_status(service, status)

        world.start()
        await world.submit()
        await world.settle(60)
        world.cluster.update_status = write_the_last_word_after_the_change  # type: ignore[method-assign] - as above
        await world.remove("Pod")
        await world.settle(60)
        assert world.ready()[0] == "True"
        assert {image_of(pod) for pod in world.pods()} == {"mine:2"}

    simulate(story)


def test_a_pod_deleted_while_pods_are_listed_is_not_believed_to_live() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit(having(scaling={"minReplicas": 2, "maxReplicas": 2}))
        await world.settle(60)
        (pod, _) = world.pods()
        listing = asyncio.create_task(world.operator.controller.resync())
        await world.settle(LATENCY * 1.5)
        world.operator.watch.lossy = True  # as its event comes before the answer to the listing, by hand
        await world.cluster.delete(pod, grace=False)
        world.operator.watch.lossy = False
        world.operator.controller.seen("DELETED", pod)
        await listing
        await world.settle(60)
        assert world.service["status"]["readyReplicas"] == 2
        known = [each["metadata"]["name"] for each in world.operator.controller.cache.children(KEY)]
        assert pod["metadata"]["name"] not in known

    simulate(story)


def test_an_image_that_cannot_be_pulled_is_told_and_the_old_pods_keep_serving_until_it_is_mended() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle(60)
        await world.submit(having(runtime={"image": "broken:1"}))
        await world.settle(60)
        status, reason, message = world.ready()
        assert (status, reason) == ("False", "ImagePullFailed")
        assert (
            message == "image broken:1 cannot be pulled: manifest unknown; 1 pod of an earlier revision keeps serving"
        )
        assert world.condition("Available")[0] == "True"
        assert await world.quiet() == []
        await world.submit(having(runtime={"image": "mine:1"}))
        await world.settle(60)
        assert world.ready()[0] == "True"
        assert [image_of(pod) for pod in world.pods()] == ["mine:1"]
        told = [(event.type, event.reason) for _, event in world.cluster.events]
        assert ("Warning", "ImagePullFailed") in told
        assert told[-1] == ("Normal", "InferenceAnswered")

    simulate(story, ailment=unpullable)


def test_going_back_to_what_was_there_takes_the_pods_that_still_serve() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle(60)
        before = [pod["metadata"]["name"] for pod in world.pods()]
        await world.submit(having(runtime={"image": "broken:1"}))
        await world.settle(60)
        await world.submit()
        await world.settle(60)
        assert [pod["metadata"]["name"] for pod in world.pods()] == before
        assert world.ready()[0] == "True"
        assert len(world.names("ControllerRevision")) == 2
        assert await world.quiet() == []

    simulate(story, ailment=unpullable)


def stored_by_an_older_api(manifest: Manifest) -> Manifest:
    """As if the API server had taken the spec before this version's rules were there."""
    if manifest["kind"] != "InferenceService":
        return manifest
    return {**manifest, "spec": {**manifest["spec"], "gpu": {"count": 1}}}


def test_a_spec_that_is_not_valid_is_told_and_the_old_pods_keep_serving_until_it_is_mended() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle(60)
        before = world.state()
        world.operator.api.rewrite = stored_by_an_older_api
        await world.submit(having(runtime={"image": "mine:2"}))
        await world.settle(60)
        status, reason, message = world.ready()
        assert (status, reason) == ("False", "InvalidSpec")
        assert message.startswith("spec: gpu is not supported by this version of OpenClaw: request the device")
        assert message.endswith("; 1 pod of an earlier revision keeps serving")
        assert world.service["status"]["url"] == "http://digits.vision.svc"
        assert world.state()[deployment_ref()] == before[deployment_ref()]
        assert await world.quiet() == []
        world.operator.api.rewrite = lambda manifest: manifest
        await world.submit(having(runtime={"image": "mine:3"}))
        await world.settle(60)
        assert world.ready()[0] == "True"
        assert [image_of(pod) for pod in world.pods()] == ["mine:3"]

    simulate(story)


def test_what_the_api_server_refuses_is_told_and_tried_again_once_it_is_changed() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle(60)
        world.operator.api.refuse = lambda manifest: (
            "spec.template.spec.containers[0].image: not from this registry"
            if "forbidden" in str(manifest.get("spec", {}).get("template"))
            else ""
        )
        await world.submit(having(runtime={"image": "forbidden:1"}))
        await world.settle(60)
        status, reason, message = world.ready()
        assert (status, reason) == ("False", "Rejected")
        assert message == (
            "the API server refuses Deployment digits-a: spec.template.spec.containers[0].image: "
            "not from this registry; 1 pod of an earlier revision keeps serving"
        )
        tries = world.writes.count("refused")
        await world.settle(3600)
        assert world.writes.count("refused") - tries <= 7, "a refusal is tried again at listings only"
        await world.submit(having(runtime={"image": "mine:1"}))
        await world.settle(60)
        assert world.ready()[0] == "True"

    simulate(story)


OTHER = Config(runtime_image="openclaw-runtime:9", default_cpu="3", default_memory="3Gi", image_pull_policy="Always")


def test_another_version_of_the_operator_restarts_no_pod_and_writes_nothing() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit()
        await world.settle(60)
        pods = [pod["metadata"]["uid"] for pod in world.pods()]
        await world.restart(OTHER)
        assert await world.quiet() == []
        assert [pod["metadata"]["uid"] for pod in world.pods()] == pods
        await world.submit(having(runtime={"workers": 2}))
        await world.settle(60)
        assert world.image == Config().runtime_image
        assert world.ready()[0] == "True"

    simulate(story)


def test_many_services_come_up_and_do_not_disturb_each_other() -> None:
    async def story(world: World) -> None:
        world.start()
        for number in range(10):
            service = services.manifest(name=f"service-{number}")
            service["metadata"] = {"name": f"service-{number}", "namespace": "vision"}
            await world.cluster.apply(service, manager="kubectl")
        await world.settle(120)
        for each in world.cluster.all("InferenceService"):
            assert each["status"]["conditions"][0]["status"] == "True"
        assert await world.quiet() == []

    simulate(story)
