"""When cyclic garbage is collected: real cycles, the real collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from openclaw.errors import ConfigInvalid
from openclaw.serving import garbage
from openclaw.serving.garbage import IdleCollector, Limits, Pauses
from support.waiting import until

SOON = Limits(young=10, idle_seconds=0.001, rest_seconds=0.002, full_after=1, look_seconds=0.001)


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    yield
    gc.set_threshold(*thresholds)
    if not frozen:
        gc.unfreeze()
    gc.enable()


class Node:
    def __init__(self) -> None:
        self.itself = self


def cycle() -> weakref.ref[Node]:
    return weakref.ref(Node())


class Load:
    """Requests as the collector sees them."""

    def __init__(self, in_flight: int = 0) -> None:
        self.answered, self.in_flight = 0, in_flight

    def __call__(self) -> tuple[float, float]:
        return self.answered, self.in_flight


async def test_cycles_are_collected_when_there_are_no_requests() -> None:
    garbage.settle(Limits(backstop=10**9))
    collector = IdleCollector(Load(), SOON)
    references = [cycle() for _ in range(100)]
    assert all(reference() is not None for reference in references)
    collector.start()
    await until(lambda: all(reference() is None for reference in references))
    collector.stop()


async def test_old_cycles_too_are_collected_when_it_rests() -> None:
    garbage.settle(Limits(backstop=10**9))
    node = Node()
    old = weakref.ref(node)
    gc.collect(0)
    gc.collect(1)
    del node
    gc.collect(1)
    assert old() is not None
    collector = IdleCollector(Load(), SOON)
    collector.start()
    await until(lambda: old() is None)
    collector.stop()


@pytest.mark.parametrize("busy", ["in flight", "answering"])
async def test_nothing_is_collected_between_requests(busy: str) -> None:
    garbage.settle(Limits(backstop=10**9))
    load = Load(in_flight=1 if busy == "in flight" else 0)
    looks = 0

    def activity() -> tuple[float, float]:
        nonlocal looks
        looks += 1
        load.answered += busy == "answering"
        return load()

    collector = IdleCollector(activity, SOON)
    references = [cycle() for _ in range(100)]
    collector.start()
    await until(lambda: looks >= 20)
    assert all(reference() is not None for reference in references)
    collector.stop()


async def test_nothing_more_is_collected_after_it_was_stopped() -> None:
    garbage.settle(Limits(backstop=10**9))
    looks: list[None] = []

    def activity() -> tuple[float, float]:
        looks.append(None)
        return 0, 0

    collector = IdleCollector(activity, SOON)
    collector.start()
    await until(lambda: len(looks) > 3)
    collector.stop()
    before = len(looks)
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, done.set)
    await done.wait()
    assert len(looks) == before


def test_cycles_under_constant_load_are_bounded_by_the_backstop() -> None:
    garbage.settle(Limits(backstop=1000))
    alive = 0
    most = 0

    def ended() -> None:
        nonlocal alive
        alive -= 1

    for _ in range(50_000):
        node = Node()
        weakref.finalize(node, ended)
        alive += 1
        most = max(most, alive)
        del node
    assert most < 5000


def test_what_was_alive_is_frozen_and_what_restore_gives_back_is_collected_again() -> None:
    thresholds = gc.get_threshold()
    node = Node()
    frozen = weakref.ref(node)
    garbage.settle()
    del node
    gc.collect()
    assert frozen() is not None
    assert gc.get_threshold()[0] == Limits().backstop
    garbage.restore(thresholds)
    gc.collect()
    assert frozen() is None
    assert gc.get_threshold() == thresholds


def test_pauses_are_measured_by_generation_until_it_is_stopped() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.pauses: list[tuple[int, float]] = []

        def gc_paused(self, generation: int, seconds: float) -> None:
            self.pauses.append((generation, seconds))

    recorder = Recorder()
    pauses = Pauses(recorder)
    gc.disable()
    pauses.start()
    for generation in (0, 1, 2, 2):
        gc.collect(generation)
    pauses.stop()
    pauses.stop()
    gc.collect()
    assert [generation for generation, _ in recorder.pauses] == [0, 1, 2, 2]
    assert all(seconds > 0 for _, seconds in recorder.pauses)


def test_the_environment_turns_it_off() -> None:
    assert garbage.managed({})
    assert not garbage.managed({"OPENCLAW_GC": "default"})
    with pytest.raises(ConfigInvalid, match="OPENCLAW_GC is 'off'; allowed: managed, default"):
        garbage.managed({"OPENCLAW_GC": "off"})
