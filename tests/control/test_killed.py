"""The operator is killed after every single write of a story, and another one takes over: the end is the same.

After Sieve (OSDI 2022): intermediate states, stale views after a restart, and events that nobody observed.
"""

from collections.abc import Awaitable, Callable

import pytest

from openclaw_operator.config import Config
from openclaw_operator.names import Manifest, Ref
from simulation import services
from simulation.kubelet import deployment_ref, unpullable
from simulation.services import having
from simulation.world import World, simulate

Act = Callable[[World], Awaitable[None]]

BEFORE = having(runtime={"workers": 1}, scaling={"minReplicas": 2, "maxReplicas": 3})


async def nothing(world: World) -> None:
    """There is no service yet."""


async def present(world: World) -> None:
    await world.submit(BEFORE)


async def rolled_often(world: World) -> None:
    for workers in range(2, 5):
        await world.submit(having(runtime={"workers": workers}, scaling={"minReplicas": 2, "maxReplicas": 3}))
        await world.settle(60)
    await present(world)


async def asleep(world: World) -> None:
    await world.submit({**BEFORE, "suspend": True})


async def create(world: World) -> None:
    await world.submit(BEFORE)


async def create_in_full(world: World) -> None:
    await world.submit(services.FULL)


async def update(world: World) -> None:
    await world.submit({**BEFORE, "runtime": {"workers": 9}})


async def update_twice(world: World) -> None:
    await update(world)
    await world.settle(0.03)
    await world.submit({**BEFORE, "runtime": {"workers": 10}})


async def go_back(world: World) -> None:
    await update(world)
    await world.settle(1)
    await present(world)


async def break_image(world: World) -> None:
    await world.submit({**BEFORE, "runtime": {"image": "broken:1"}})


async def suspend(world: World) -> None:
    await world.submit({**BEFORE, "suspend": True})


async def resume(world: World) -> None:
    await world.submit(BEFORE)


async def switch_scaling_off(world: World) -> None:
    await world.submit({**BEFORE, "scaling": {"minReplicas": 2, "maxReplicas": 2}})


async def scale_and_update(world: World) -> None:
    world.cluster.scale(deployment_ref(), 3, manager="kubectl")
    await update(world)


async def lose_children(world: World) -> None:
    await world.remove("Service")
    await world.remove("Deployment")
    await world.remove("ConfigMap")


async def withdraw(world: World) -> None:
    await world.withdraw()


async def create_and_withdraw(world: World) -> None:
    await create(world)
    await world.settle(0.05)
    await world.withdraw()


async def replace(world: World) -> None:
    await world.withdraw()
    await world.settle(0.05)
    await world.submit({**BEFORE, "runtime": {"workers": 9}})


STORIES: dict[str, tuple[Act, Act]] = {
    "create": (nothing, create),
    "create in full": (nothing, create_in_full),
    "update": (present, update),
    "update twice": (present, update_twice),
    "update beyond the history": (rolled_often, update),
    "go back": (present, go_back),
    "break the image": (present, break_image),
    "suspend": (present, suspend),
    "resume": (asleep, resume),
    "switch scaling off": (present, switch_scaling_off),
    "scale and update": (present, scale_and_update),
    "lose children": (present, lose_children),
    "delete": (present, withdraw),
    "create and delete": (nothing, create_and_withdraw),
    "delete and create": (present, replace),
}

HURRIED = {"update twice", "go back"}
"""Stories with a spec that a dead operator never sees: what nobody saw is no part of the history."""

CONFIG = Config(revision_history_limit=2)
REST = 1300.0


async def told(world: World, story: tuple[Act, Act], *, lives: int | None) -> tuple[dict[Ref, Manifest], int]:
    """Tells a story to its end, with an operator that dies after `lives` writes of its second part.

    Returns:
        The end state, and how many writes it took the operator that saw the second part first.
    """
    before, act = story
    world.start()
    await before(world)
    await world.settle(60)
    await world.operator.stop()
    first = world.start(lives=lives)
    await world.settle(5)
    await act(world)
    await world.settle(REST)
    if first.api.dead.is_set():
        await world.restart()
        await world.settle(REST)
    state = world.state()
    quiet = len(world.writes)
    await world.settle(REST)
    assert world.writes[quiet:] == []
    assert world.state() == state
    return state, len(first.api.writes)


@pytest.mark.parametrize("name", STORIES)
def test_killed_after_any_write_the_end_is_the_same_and_nothing_is_written_after_it(name: str) -> None:
    def tell(lives: int | None) -> tuple[dict[Ref, Manifest], int]:
        return simulate(  # type: ignore[no-any-return] - what the story returns
            lambda world: told(world, STORIES[name], lives=lives), config=CONFIG, ailment=unpullable
        )

    undisturbed, writes = tell(None)
    assert (writes > 0) == (name != "delete")
    for lives in range(writes):
        state, _ = tell(lives)
        if name in HURRIED:
            state, undisturbed = _without_history(state), _without_history(undisturbed)
        assert state == undisturbed, f"killed after {lives} of {writes} writes"


def _without_history(state: dict[Ref, Manifest]) -> dict[Ref, Manifest]:
    return {ref: each for ref, each in state.items() if ref.kind not in {"ControllerRevision", "ConfigMap"}}


def _decided(state: dict[Ref, Manifest]) -> dict[Ref, Manifest]:
    """Without history, and without numbers of replicas: they are somebody else's, unless one knows nothing of them."""
    plain = _without_history(state)
    for each in plain.values():
        each.get("spec", {}).pop("replicas", None)
        for count in ("replicas", "readyReplicas", "updatedReplicas", "conditions"):
            each.get("status", {}).pop(count, None)
    return plain


@pytest.mark.parametrize("name", STORIES)
def test_an_operator_that_begins_with_an_old_view_does_no_harm_that_lasts(name: str) -> None:
    """Time travel: the API server that answers after a restart is behind, and the events since come one by one."""

    async def story(world: World) -> None:
        before, act = STORIES[name]
        world.start()
        await before(world)
        await world.settle(60)
        await act(world)
        await world.settle(REST)
        state, moments = _decided(world.state()), len(world.history.events)
        for moment in range(0, moments, max(1, moments // 4)):
            await world.operator.stop()
            world.start_in_the_past(moment)
            await world.settle(30)
            assert _decided(world.state()) == state, f"began after {moment} of {moments}"
        assert await world.quiet() == []

    simulate(story, config=CONFIG, ailment=unpullable)


def test_killed_again_and_again_it_gets_there_all_the_same() -> None:
    async def story(world: World) -> None:
        await world.submit(BEFORE)
        for _ in range(40):
            world.start(lives=1)
            await world.settle(30)
            await world.operator.stop()
        world.start()
        assert await world.quiet() == []
        assert world.ready()[0] == "True"

    simulate(story)
