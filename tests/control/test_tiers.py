"""The operator asks pods in which tier of memory they have their model: what the status says, and what it costs."""

from openclaw_operator import names
from openclaw_operator.cluster.inquiry import INTERVAL
from openclaw_operator.names import Manifest
from openclaw_operator.tiers import Question
from simulation.kubelet import unpullable
from simulation.services import having
from simulation.world import World, simulate


def tiers(world: World) -> list[tuple[str, int]]:
    """What the status says, by tier."""
    entries = (world.service.get("status", {}).get("model") or {}).get("tiers") or []
    return [(entry["tier"], entry["pods"]) for entry in entries]


def replicas(count: int) -> Manifest:
    return having(scaling={"minReplicas": count, "maxReplicas": count})


async def up(world: World, count: int = 1) -> None:
    """Has a service come up, whose pods were asked."""
    world.start()
    await world.submit(replicas(count))
    await world.settle(60)
    assert world.ready()[0] == "True"


def reconciles(world: World) -> float:
    """How often the operator has looked at any service."""
    families = world.operator.controller.telemetry.registry.collect()
    samples = (sample for family in families for sample in family.samples)
    return sum(each.value for each in samples if each.name == "openclaw_operator_reconciles_total")


def packed(_: Question) -> str | None:
    return "packed"


def mapped(_: Question) -> str | None:
    return "mapped"


def one_mapped(question: Question) -> str | None:
    return "mapped" if question.host == "10.0.0.1" else "packed"


def test_the_status_says_where_the_model_is_and_then_nothing_is_written() -> None:
    async def story(world: World) -> None:
        world.servers.tier = packed
        await up(world, 2)
        assert tiers(world) == [("packed", 2)]
        assert {(each.model, each.port) for each in world.servers.asked} == {("digits", 8080)}
        assert len(world.writes) <= 11
        assert await world.quiet() == []

    simulate(story)


def test_a_pod_is_asked_once_when_it_is_ready_and_then_now_and_then() -> None:
    async def story(world: World) -> None:
        world.servers.tier = packed
        await up(world)
        assert len(world.servers.asked) == 1
        await world.settle(10 * INTERVAL)
        assert 8 <= len(world.servers.asked) <= 14

    simulate(story)


def test_pods_that_differ_are_counted_by_tier_and_the_message_says_what_to_do() -> None:
    async def story(world: World) -> None:
        world.servers.tier = one_mapped
        await up(world, 3)
        assert tiers(world) == [("packed", 2), ("mapped", 1)]
        state, reason, message = world.condition("ModelLoaded")
        assert (state, reason) == ("True", "Loaded")
        assert "in 1 of 3 pods its weights do not fit into memory" in message
        assert await world.quiet() == []

    simulate(story)


def test_a_model_that_is_packed_later_is_told_with_one_write() -> None:
    async def story(world: World) -> None:
        world.servers.tier = mapped
        await up(world)
        before = len(world.writes)
        world.servers.tier = packed
        await world.settle(2 * INTERVAL)
        assert tiers(world) == [("packed", 1)]
        assert world.writes[before:] == ["status vision/digits"]
        assert world.condition("ModelLoaded")[2] == "the model is loaded and answered an inference"

    simulate(story)


def test_pods_that_cannot_be_asked_cost_nothing_but_the_field() -> None:
    async def conditions(world: World) -> Manifest:
        await up(world)
        return {each["type"]: each["message"] for each in world.service["status"]["conditions"]}

    async def unreachable(world: World) -> tuple[Manifest, int]:
        found = await conditions(world)
        assert world.servers.asked
        assert "model" not in world.service["status"]
        assert await world.quiet() == []
        return found, len(world.writes)

    async def reachable(world: World) -> tuple[Manifest, int]:
        world.servers.tier = packed
        return await conditions(world), len(world.writes)

    found, writes = simulate(unreachable)
    assert (found, writes + 1) == simulate(reachable)


def test_nothing_is_looked_at_again_for_pods_that_cannot_be_asked() -> None:
    async def story(world: World) -> None:
        await up(world, 3)
        before, asked = reconciles(world), len(world.servers.asked)
        await world.settle(200)
        assert len(world.servers.asked) > asked
        assert reconciles(world) == before

    simulate(story)


def test_pods_that_can_be_asked_are_told_of_beside_one_that_cannot() -> None:
    async def story(world: World) -> None:
        world.servers.tier = lambda question: None if question.host == "10.0.0.1" else "packed"
        await up(world, 3)
        assert tiers(world) == [("packed", 2)]
        assert await world.quiet() == []

    simulate(story)


def test_a_pod_that_falls_silent_keeps_what_it_said() -> None:
    async def story(world: World) -> None:
        world.servers.tier = mapped
        await up(world)
        world.servers.tier = lambda _: None
        assert await world.quiet() == []
        assert tiers(world) == [("mapped", 1)]

    simulate(story)


def test_a_pod_that_could_not_be_asked_at_first_is_asked_again_soon() -> None:
    async def story(world: World) -> None:
        await up(world)
        world.servers.tier = packed
        await world.settle(120)
        assert tiers(world) == [("packed", 1)]

    simulate(story)


def test_a_restarted_operator_writes_nothing_where_nothing_is_new() -> None:
    async def story(world: World) -> None:
        world.servers.tier = one_mapped
        await up(world, 2)
        await world.restart()
        assert await world.quiet() == []
        assert tiers(world) == [("packed", 1), ("mapped", 1)]

    simulate(story)


def test_pods_that_come_are_asked_and_those_that_go_are_forgotten() -> None:
    async def story(world: World) -> None:
        world.servers.tier = packed
        await up(world)
        await world.submit(replicas(3))
        await world.settle(60)
        assert tiers(world) == [("packed", 3)]
        await world.submit(replicas(1))
        await world.settle(60)
        assert tiers(world) == [("packed", 1)]
        asked = len(world.servers.asked)
        await world.settle(INTERVAL * 1.25)
        assert len({each.host for each in world.servers.asked[asked:]}) == 1
        await world.withdraw()
        await world.settle(60)
        asked = len(world.servers.asked)
        await world.settle()
        assert len(world.servers.asked) == asked

    simulate(story)


def test_what_pods_of_another_revision_said_is_not_told_of_this_one() -> None:
    async def story(world: World) -> None:
        world.servers.tier = mapped
        await up(world)
        world.servers.tier = lambda _: None
        await world.submit(having(scaling={"minReplicas": 1, "maxReplicas": 1}, runtime={"workers": 2}))
        await world.settle(60)
        assert world.ready()[0] == "True"
        assert "model" not in world.service["status"]

    simulate(story)


def test_pods_that_are_not_ready_are_not_asked() -> None:
    async def story(world: World) -> None:
        world.start()
        await world.submit(having(runtime={"image": "broken:1"}))
        await world.settle(60)
        assert world.pods()
        assert world.servers.asked == []

    simulate(story, ailment=unpullable)


def test_a_server_that_was_restarted_is_asked_again_and_what_it_said_before_stays_until_then() -> None:
    async def story(world: World) -> None:
        world.servers.tier = mapped
        await up(world)
        (pod,) = world.pods()
        asked, written = len(world.servers.asked), len(world.writes)
        restarted = {"containerStatuses": [{"name": names.CONTAINER, "restartCount": 1, "state": {"running": {}}}]}
        world.cluster.write_status(names.ref(pod), {**pod["status"], **restarted})
        await world.settle(10)
        assert [each.asked.restarts for each in world.servers.asked[asked:]] == [1]
        assert world.writes[written:] == []
        world.servers.tier = packed
        await world.settle(2 * INTERVAL)
        assert tiers(world) == [("packed", 1)]

    simulate(story)
