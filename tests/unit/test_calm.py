"""What can wait does while services start, is told when it need not any more, and never waits for ever."""

import asyncio
from collections.abc import Awaitable, Callable

from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator.cluster.calm import CALM, PATIENCE, Calm
from simulation.virtualtime import run


class Waiting:
    """Asks again when released, and notes when a key had to wait no more."""

    def __init__(self) -> None:
        self.calm: Calm[str] = Calm(self.ask)
        self.done: dict[str, float] = {}

    def ask(self, key: str) -> None:
        if not self.calm.defers(key):
            self.done[key] = asyncio.get_running_loop().time()


def story(told: Callable[[Waiting], Awaitable[None]]) -> Waiting:
    async def main() -> Waiting:
        waiting = Waiting()
        await told(waiting)
        await asyncio.sleep(86_400)
        assert len(waiting.calm) == 0
        return waiting

    return run(main)


def test_nothing_waits_where_nothing_stirs() -> None:
    async def told(waiting: Waiting) -> None:
        waiting.ask("a")
        assert list(waiting.done) == ["a"]

    story(told)


def test_it_waits_until_the_last_stir_is_a_while_ago() -> None:
    async def told(waiting: Waiting) -> None:
        waiting.calm.stir()
        waiting.ask("a")
        await asyncio.sleep(CALM / 2)
        waiting.calm.stir()
        since = asyncio.get_running_loop().time()
        await asyncio.sleep(CALM * 0.9)
        assert not waiting.done
        await asyncio.sleep(CALM)
        assert waiting.done["a"] == since + CALM

    story(told)


def test_a_key_that_is_forgotten_is_not_released() -> None:
    async def told(waiting: Waiting) -> None:
        waiting.calm.stir()
        waiting.ask("a")
        waiting.ask("b")
        waiting.calm.forget("a")

    assert list(story(told).done) == ["b"]


@given(
    stirs=st.lists(st.floats(0.01, 5 * CALM), max_size=200),
    asked=st.dictionaries(st.sampled_from("abcde"), st.floats(0, 100), min_size=1),
)
def test_however_long_the_burst_everything_gets_its_turn(stirs: list[float], asked: dict[str, float]) -> None:
    async def told(waiting: Waiting) -> None:
        async def ask(key: str, after: float) -> None:
            await asyncio.sleep(after)
            waiting.ask(key)

        async def burst() -> None:
            for pause in stirs:
                waiting.calm.stir()
                await asyncio.sleep(pause)

        start = asyncio.get_running_loop().time()
        await asyncio.gather(burst(), *(ask(key, after) for key, after in asked.items()))
        await asyncio.sleep(2 * PATIENCE)
        for key, after in asked.items():
            assert waiting.done[key] - start - after <= PATIENCE + CALM

    story(told)
