"""Each key once, never two at a time, the urgent first, failures with a growing delay."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator.cluster.queue import FIRST_DELAY, MAX_DELAY, Priority, Queue
from openclaw_operator.errors import Retry
from simulation.virtualtime import run

Scenario = Callable[[], Awaitable[None]]


class Worker:
    """Notes when each key was worked on; `outcomes` are returned or raised one after the other, then None."""

    def __init__(self, *outcomes: float | Exception | None, takes: float = 0.0) -> None:
        self.done: list[tuple[str, float]] = []
        self.active: set[str] = set()
        self.most = 0
        self._outcomes = list(outcomes)
        self._takes = takes

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self.done]

    @property
    def times(self) -> list[float]:
        return [when for _, when in self.done]

    async def __call__(self, key: str) -> float | None:
        assert key not in self.active, f"{key} is worked on twice at a time"
        self.active.add(key)
        self.most = max(self.most, len(self.active))
        self.done.append((key, asyncio.get_running_loop().time()))
        await asyncio.sleep(self._takes)
        self.active.discard(key)
        outcome = self._outcomes.pop(0) if self._outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def working(worker: Worker, scenario: Callable[[Queue[str]], Awaitable[None]], *, workers: int = 1) -> None:
    """Runs a scenario beside a queue, then lets a virtual day pass."""

    async def main() -> None:
        queue = Queue(worker, workers=workers)
        task = asyncio.create_task(queue.run())
        await scenario(queue)
        await asyncio.sleep(86_400)
        assert queue.idle
        assert queue.overdue() == 0
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    run(main)


def test_a_key_added_many_times_before_its_turn_is_worked_on_once() -> None:
    worker = Worker()

    async def scenario(queue: Queue[str]) -> None:
        for _ in range(5):
            queue.add("a")
            queue.add("b")
        assert len(queue) == 2

    working(worker, scenario)
    assert worker.keys == ["a", "b"]


def test_a_key_added_while_it_is_worked_on_is_worked_on_once_more() -> None:
    worker = Worker(takes=10)

    async def scenario(queue: Queue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(1)
        queue.add("a")
        queue.add("a")
        assert not queue.idle

    working(worker, scenario, workers=4)
    assert worker.done == [("a", 0), ("a", 10)]


def test_different_keys_are_worked_on_side_by_side_as_far_as_there_are_workers() -> None:
    worker = Worker(takes=10)

    async def scenario(queue: Queue[str]) -> None:
        for key in "abcde":
            queue.add(key)

    working(worker, scenario, workers=2)
    assert worker.most == 2
    assert worker.times == [0, 0, 10, 10, 20]


def test_the_urgent_go_first_and_equals_in_the_order_they_came() -> None:
    worker = Worker(takes=1)

    async def scenario(queue: Queue[str]) -> None:
        queue.add("progressing", Priority.PROGRESS)
        queue.add("new", Priority.NEW)
        queue.add("newer", Priority.NEW)
        queue.add("finishing", Priority.FINISHING)

    working(worker, scenario)
    assert worker.keys == ["finishing", "new", "newer", "progressing"]


def test_a_waiting_key_becomes_more_urgent_but_never_less() -> None:
    worker = Worker(takes=1)

    async def scenario(queue: Queue[str]) -> None:
        queue.add("a", Priority.NEW)
        queue.add("b", Priority.PROGRESS)
        queue.add("b", Priority.FINISHING)
        queue.add("b", Priority.PROGRESS)
        assert len(queue) == 2

    working(worker, scenario)
    assert worker.keys == ["b", "a"]


def test_a_key_that_asks_for_it_comes_back_after_its_delay() -> None:
    worker = Worker(30.0, 0.0, None)

    async def scenario(queue: Queue[str]) -> None:
        queue.add("a")

    working(worker, scenario)
    assert worker.times == [0, 30, 30]


def test_the_delay_doubles_from_failure_to_failure_up_to_its_bound_and_starts_anew_after_a_success() -> None:
    failures = [RuntimeError("no")] * 12
    worker = Worker(*failures, None, RuntimeError("again"))

    async def scenario(queue: Queue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(40_000)
        queue.add("a")

    working(worker, scenario)
    delays = [later - earlier for earlier, later in zip(worker.times, worker.times[1:], strict=False)]
    assert delays[:12] == [min(FIRST_DELAY * 2**failed, MAX_DELAY) for failed in range(12)]
    assert delays[13] == FIRST_DELAY


def test_a_key_that_fails_for_ever_is_tried_for_ever() -> None:
    worker = Worker(*[RuntimeError("no")] * 1200)

    async def scenario(queue: Queue[str]) -> None:
        queue.add("a")
        for _ in range(1200):
            await asyncio.sleep(MAX_DELAY)

    working(worker, scenario)
    assert len(worker.done) > 1200


def test_a_retry_with_a_time_of_its_own_is_taken_at_its_word() -> None:
    worker = Worker(Retry("wait", after=42.0))

    async def scenario(queue: Queue[str]) -> None:
        queue.add("a")

    working(worker, scenario)
    assert worker.times == [0, 42]


def test_news_of_a_key_end_its_wait() -> None:
    worker = Worker(Retry("wait", after=100.0))

    async def scenario(queue: Queue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(5)
        queue.add("a")

    working(worker, scenario)
    assert worker.times == [0, 5]


def test_the_earlier_of_two_delays_counts() -> None:
    worker = Worker()

    async def scenario(queue: Queue[str]) -> None:
        queue.add_after("a", 50)
        queue.add_after("a", 10)
        queue.add_after("a", 70)
        queue.add_after("b", 20)
        queue.add("b")
        queue.add_after("b", 1)

    working(worker, scenario)
    assert worker.done == [("b", 0), ("a", 10)]


def test_overdue_is_the_time_that_work_on_a_key_hangs() -> None:
    worker = Worker(takes=60)

    async def scenario(queue: Queue[str]) -> None:
        assert queue.overdue() == 0
        queue.add("a")
        await asyncio.sleep(0)
        queue.add("b")
        await asyncio.sleep(55)
        assert queue.overdue() == 55
        await asyncio.sleep(15)
        assert queue.overdue() == 10

    working(worker, scenario)


def test_a_long_queue_that_moves_is_not_overdue() -> None:
    async def scenario(queue: Queue[str]) -> None:
        for key in "abcdefghij":
            queue.add(key)
        await asyncio.sleep(95)
        assert queue.overdue() <= 10

    working(Worker(takes=10), scenario)


def test_a_key_that_nobody_works_on_is_overdue_however_often_it_is_added() -> None:
    async def main() -> None:
        queue = Queue(Worker(), workers=1)
        queue.add("a")
        await asyncio.sleep(10)
        queue.add("a", Priority.FINISHING)
        assert queue.overdue() == 10

    run(main)


def test_a_delayed_key_is_not_overdue() -> None:
    async def scenario(queue: Queue[str]) -> None:
        queue.add_after("a", 100)
        await asyncio.sleep(50)
        assert queue.overdue() == 0
        assert queue.idle

    working(Worker(), scenario)


def test_cancelling_the_queue_ends_its_workers() -> None:
    worker = Worker(takes=10)

    async def main() -> None:
        queue = Queue(worker, workers=3)
        task = asyncio.create_task(queue.run())
        queue.add("a")
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        queue.add("b")
        await asyncio.sleep(100)

    run(main)
    assert worker.keys == ["a"]


steps = st.tuples(
    st.sampled_from("abc"), st.sampled_from(Priority), st.sampled_from([0.0, 0.3, 2.0]), st.sampled_from([None, 1.0])
)


@given(plan=st.lists(steps, max_size=20), outcomes=st.lists(st.sampled_from(["ok", "fail", "again"]), max_size=12))
def test_whatever_happens_the_last_news_of_every_key_is_worked_on(plan: list[Any], outcomes: list[str]) -> None:
    """No schedule of news, delays and failures loses a key, or works on one twice at a time."""
    results = {"ok": None, "fail": RuntimeError("no"), "again": 0.5}
    worker = Worker(*(results[outcome] for outcome in outcomes), takes=1)
    last: dict[str, float] = {}

    async def scenario(queue: Queue[str]) -> None:
        for key, priority, wait, delay in plan:
            if delay is None:
                queue.add(key, priority)
            else:
                queue.add_after(key, delay)
            last[key] = asyncio.get_running_loop().time()
            await asyncio.sleep(wait)

    working(worker, scenario, workers=2)
    for key, when in last.items():
        assert any(worked == key and start >= when for worked, start in worker.done)
