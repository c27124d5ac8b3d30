"""The asyncio edge: who is answered, with whom, and what is told, on runs that the tests start and end themselves."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from openclaw.errors import DeadlineExceeded, InvalidRequest, NotReady, Overloaded
from openclaw.execute.session import Array
from openclaw.serving.batching.batcher import Batcher
from openclaw.serving.batching.hop import Inline, measure_hop
from openclaw.serving.batching.layout import Layout
from openclaw.serving.batching.measuring import ModelProfile, unmeasured
from openclaw.serving.batching.profile import Point, Profile, batch_sizes
from openclaw.serving.batching.settings import BatchingSettings
from simulation import virtualtime
from support.waiting import until

LAYOUT = Layout(("x",), fixed=True)
WIDE = 4


def request(value: float, rows: int = 1) -> dict[str, Array]:
    return {"x": np.full((rows, WIDE), value, dtype=np.float32)}


def profile(latency: Callable[[int], float], largest: int = 8) -> ModelProfile:
    points = tuple(Point(rows, latency(rows), 5) for rows in batch_sizes(largest))
    return ModelProfile(LAYOUT if largest > 1 else None, {0: Profile(points)})


def paying(rows: int) -> float:
    return 0.010 + 0.001 * rows


@dataclass
class Notes:
    """An observer that keeps what it is told."""

    waits: list[float] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def queued(self, seconds: float, /) -> None:
        self.waits.append(seconds)

    def ran(self, rows: int, seconds: float, /) -> None:
        self.runs.append(rows)

    def shed(self, reason: str, /) -> None:
        self.refusals.append(reason)


class Doubling:
    """y = 2x, once the gate is open; fails on a batch with a negative value, and on a lone one."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.runs: list[int] = []

    def run(self, names: Sequence[str], arrays: Mapping[str, Array]) -> list[Array]:
        self.runs.append(len(arrays["x"]))
        self.entered.release()
        assert self.gate.wait(20)
        if (arrays["x"] < 0).any():
            raise InvalidRequest("negative")
        outputs = {"y": arrays["x"] * 2, "z": arrays["x"] + 1}
        return [outputs[name] for name in names]


@pytest.fixture
async def model() -> AsyncIterator[Doubling]:
    model = Doubling()
    yield model
    model.gate.set()


@pytest.fixture
async def make(model: Doubling) -> AsyncIterator[Callable[..., Batcher]]:
    """Makes batchers of the gated model, with a thread of their own."""
    executor = ThreadPoolExecutor(2)

    def make(
        largest: int = 8,
        concurrency: int = 1,
        observer: Notes | None = None,
        spare: int = 0,
        clock: Callable[[], float] = time.perf_counter,
        **settings: Any,
    ) -> Batcher:
        return Batcher(
            model.run,
            profile=profile(paying, largest),
            settings=BatchingSettings(max_batch_size=largest, **settings),
            executor=executor,
            observer=observer,
            concurrency=concurrency,
            spare=spare,
            hop=0.0,
            clock=clock,
        )

    yield make
    model.gate.set()
    executor.shutdown()


def later(batcher: Batcher, value: float, rows: int = 1, **options: Any) -> asyncio.Future[list[Array]]:
    answer = batcher.submit(request(value, rows), options.pop("outputs", ("y",)), **options)
    assert isinstance(answer, asyncio.Future)
    return answer


async def test_those_who_come_while_the_model_runs_share_the_next_run(
    make: Callable[..., Batcher], model: Doubling
) -> None:
    notes = Notes()
    batcher = make(observer=notes)
    first = later(batcher, 1)
    await until(lambda: batcher.running == 1)
    rest = [later(batcher, value) for value in (2, 3, 4)]
    assert batcher.waiting == 3
    assert batcher.waiting_bytes == 3 * WIDE * 4
    model.gate.set()
    answers = await asyncio.gather(first, *rest)
    assert [float(y[0, 0]) for (y,) in answers] == [2, 4, 6, 8]
    assert model.runs == [1, 3]
    assert notes.runs == [1, 3]
    assert len(notes.waits) == 4
    assert all(wait >= 0 for wait in notes.waits)
    assert (batcher.waiting, batcher.waiting_bytes, batcher.running) == (0, 0, 0)


async def test_a_run_begins_beside_another_once_no_arrival_could_make_its_batch_better(
    make: Callable[..., Batcher], model: Doubling
) -> None:
    batcher = make(4, spare=1)
    answers = [later(batcher, 1)]
    await until(lambda: model.runs == [1])
    answers += [later(batcher, value) for value in (2, 3, 4)]
    await asyncio.sleep(0)
    assert (batcher.running, batcher.waiting) == (1, 3)
    answers.append(later(batcher, 5))
    await until(lambda: model.runs == [1, 4])
    answers += [later(batcher, value) for value in (6, 7, 8, 9)]
    await asyncio.sleep(0)
    assert (batcher.running, batcher.waiting) == (5, 4)
    model.gate.set()
    assert [float(y[0, 0]) for (y,) in await asyncio.gather(*answers)] == [2.0 * value for value in range(1, 10)]


async def test_no_run_begins_beside_another_where_there_is_a_latency_target(
    make: Callable[..., Batcher], model: Doubling
) -> None:
    batcher = make(1, spare=1, latency_target=60.0)
    answers = [later(batcher, value) for value in (1, 2)]
    await until(lambda: model.runs == [1])
    await asyncio.sleep(0)
    assert (batcher.running, batcher.waiting) == (1, 1)
    model.gate.set()
    await asyncio.gather(*answers)


async def test_where_there_is_no_memory_for_more_rows_batches_are_smaller_and_no_run_begins_beside_another(
    make: Callable[..., Batcher], model: Doubling
) -> None:
    batcher = make(8, spare=1)
    batcher.adopt(replace(profile(paying, 8), most=2))
    answers = [later(batcher, 1)]
    await until(lambda: model.runs == [1])
    answers += [later(batcher, value) for value in (2, 3, 4)]
    await asyncio.sleep(0)
    assert (batcher.running, batcher.waiting) == (1, 3)
    model.gate.set()
    await asyncio.gather(*answers)
    assert model.runs == [1, 2, 1]


async def test_runs_that_share_the_cores_are_taken_to_be_as_quick_as_each_alone(
    make: Callable[..., Batcher], model: Doubling
) -> None:
    now = 0.0
    batcher = make(1, spare=1, clock=lambda: now)
    alone = batcher.profile(request(1)).latency(1)
    answers = [later(batcher, value) for value in (1, 2)]
    await until(lambda: model.runs == [1, 1])
    now = 2 * alone
    model.gate.set()
    await asyncio.gather(*answers)
    assert batcher.profile(request(1)).latency(1) == pytest.approx(alone)


async def test_those_who_come_in_the_same_turn_of_the_loop_share_a_run(
    make: Callable[..., Batcher], model: Doubling
) -> None:
    model.gate.set()
    batcher = make()
    answers = await asyncio.gather(*[later(batcher, value) for value in range(8)])
    assert model.runs == [8]
    assert [float(y[0, 0]) for (y,) in answers] == [2.0 * value for value in range(8)]


async def test_sixteen_frames_run_as_one_batch(make: Callable[..., Batcher], model: Doubling) -> None:
    model.gate.set()
    batcher = make(16)
    await asyncio.gather(*[later(batcher, value) for value in range(16)])
    assert model.runs == [16]


async def test_requests_of_several_rows_get_their_own_back(make: Callable[..., Batcher], model: Doubling) -> None:
    model.gate.set()
    batcher = make()
    answers = await asyncio.gather(*[later(batcher, value, rows=value) for value in (1, 2, 3)])
    assert model.runs == [6]
    assert [y.shape for (y,) in answers] == [(1, WIDE), (2, WIDE), (3, WIDE)]
    assert all((y == 2.0 * value).all() for value, (y,) in zip((1, 2, 3), answers, strict=True))


async def test_a_request_larger_than_a_batch_runs_alone_and_whole(
    make: Callable[..., Batcher], model: Doubling
) -> None:
    model.gate.set()
    batcher = make()
    answers = await asyncio.gather(later(batcher, 1, rows=20), later(batcher, 2))
    assert sorted(model.runs) == [1, 20]
    assert answers[0][0].shape == (20, WIDE)


async def test_no_rows_at_all_are_the_models_to_answer(make: Callable[..., Batcher], model: Doubling) -> None:
    model.gate.set()
    batcher = make()
    answers = await asyncio.gather(later(batcher, 1, rows=0), later(batcher, 2))
    assert [y.shape for (y,) in answers] == [(0, WIDE), (1, WIDE)]


async def test_those_who_want_other_outputs_get_theirs_in_the_order_asked_for(
    make: Callable[..., Batcher], model: Doubling
) -> None:
    model.gate.set()
    batcher = make()
    wanted = [("y",), ("z", "y"), ("y", "z")]
    answers = await asyncio.gather(*[later(batcher, 5, outputs=outputs) for outputs in wanted])
    assert [[float(array[0, 0]) for array in answer] for answer in answers] == [[10], [6, 10], [10, 6]]


async def test_batching_switched_off_runs_one_by_one(make: Callable[..., Batcher], model: Doubling) -> None:
    model.gate.set()
    batcher = make(1)
    await asyncio.gather(*[later(batcher, value, rows=2) for value in range(3)])
    assert model.runs == [2, 2, 2]


async def test_several_workers_share_those_who_wait(make: Callable[..., Batcher], model: Doubling) -> None:
    batcher = make(concurrency=2)
    answers = [later(batcher, value) for value in range(6)]
    await until(lambda: len(model.runs) == 2)
    model.gate.set()
    await asyncio.gather(*answers)
    assert model.runs == [3, 3]


async def test_a_bad_request_fails_alone(make: Callable[..., Batcher], model: Doubling) -> None:
    model.gate.set()
    batcher = make()
    answers = await asyncio.gather(*[later(batcher, value) for value in (1, -1, 3)], return_exceptions=True)
    good, bad, other = answers
    assert isinstance(bad, InvalidRequest)
    assert not isinstance(good, BaseException)
    assert not isinstance(other, BaseException)
    assert (float(good[0][0, 0]), float(other[0][0, 0])) == (2, 6)
    assert model.runs == [3, 1, 1, 1]


async def test_a_model_that_loses_rows_is_run_one_by_one() -> None:
    def run(names: Sequence[str], arrays: Mapping[str, Array]) -> list[Array]:
        return [arrays["x"][:1]]

    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(run, profile=profile(paying), settings=BatchingSettings(), executor=executor, hop=0.0)
        answers = await asyncio.gather(*[later(batcher, value) for value in (1, 2)])
    assert [float(y[0, 0]) for (y,) in answers] == [1, 2]


async def test_whatever_a_model_raises_is_the_answer_and_the_next_is_served() -> None:
    def run(names: Sequence[str], arrays: Mapping[str, Array]) -> list[Array]:
        if arrays["x"][0, 0] == 1:
            raise MemoryError("none left")
        return [arrays["x"]]

    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(run, profile=profile(paying), settings=BatchingSettings(), executor=executor, hop=0.0)
        with pytest.raises(MemoryError, match="none left"):
            await later(batcher, 1)
        assert (await later(batcher, 2))[0][0, 0] == 2


async def test_whoever_is_cancelled_leaves_the_queue(make: Callable[..., Batcher], model: Doubling) -> None:
    batcher = make()
    first = later(batcher, 1)
    await until(lambda: batcher.running == 1)
    gone, stays = later(batcher, 2), later(batcher, 3)
    gone.cancel()
    await until(lambda: batcher.waiting == 1)
    assert batcher.waiting_bytes == WIDE * 4
    model.gate.set()
    await asyncio.gather(first, stays)
    assert model.runs == [1, 1]


async def test_a_cancelled_run_hurts_nobody_else_in_it(make: Callable[..., Batcher], model: Doubling) -> None:
    batcher = make()
    answers = [later(batcher, value) for value in (1, 2)]
    await until(lambda: batcher.running == 2)
    answers[0].cancel()
    model.gate.set()
    assert (await answers[1])[0][0, 0] == 4
    assert answers[0].cancelled()


async def test_a_task_that_waits_can_be_cancelled(make: Callable[..., Batcher], model: Doubling) -> None:
    batcher = make()
    first = later(batcher, 1)
    await until(lambda: batcher.running == 1)

    async def ask() -> list[Array]:
        return await later(batcher, 2)

    task = asyncio.create_task(ask())
    await until(lambda: batcher.waiting == 1)
    task.cancel()
    await until(lambda: batcher.waiting == 0)
    model.gate.set()
    await first


async def test_a_queue_that_is_full_refuses_and_says_when_to_come_again(
    make: Callable[..., Batcher], model: Doubling
) -> None:
    notes = Notes()
    batcher = make(max_queue_length=2, observer=notes)
    answers = [later(batcher, 1)]
    await until(lambda: batcher.running == 1)
    answers += [later(batcher, value) for value in (2, 3)]
    with pytest.raises(Overloaded, match="2 requests") as refused:
        batcher.submit(request(4), ("y",))
    assert refused.value.retry_after > 0
    assert notes.refusals == ["queue_length"]
    model.gate.set()
    await asyncio.gather(*answers)


async def test_the_queue_is_bounded_in_bytes_but_takes_one_request_of_any_size(
    make: Callable[..., Batcher], model: Doubling
) -> None:
    notes = Notes()
    batcher = make(max_queue_bytes=40, observer=notes)
    answers = [later(batcher, 1)]
    await until(lambda: batcher.running == 1)
    answers.append(later(batcher, 2, rows=5))
    with pytest.raises(Overloaded, match="40 bytes"):
        batcher.submit(request(3), ("y",))
    assert notes.refusals == ["queue_bytes"]
    model.gate.set()
    await asyncio.gather(*answers)
    assert (await later(batcher, 3))[0][0, 0] == 6


async def test_a_deadline_that_has_passed_is_refused(make: Callable[..., Batcher]) -> None:
    notes = Notes()
    batcher = make(observer=notes)
    with pytest.raises(DeadlineExceeded):
        batcher.submit(request(1), ("y",), deadline=asyncio.get_running_loop().time() - 0.1)
    assert notes.refusals == ["expired"]


async def test_how_long_the_oldest_run_takes_is_seen_from_outside(
    make: Callable[..., Batcher], model: Doubling
) -> None:
    batcher = make()
    assert batcher.oldest_running() == 0.0
    answer = later(batcher, 1)
    await until(lambda: batcher.oldest_running() > 0.01)
    model.gate.set()
    await answer
    assert batcher.oldest_running() == 0.0


async def test_drained_waits_for_all_that_wait_or_run(make: Callable[..., Batcher], model: Doubling) -> None:
    batcher = make()
    await batcher.drained()
    answers = [later(batcher, 1)]
    await until(lambda: batcher.running == 1)
    answers.append(later(batcher, 2))
    drained = asyncio.create_task(batcher.drained())
    await asyncio.sleep(0)
    assert not drained.done()
    model.gate.set()
    await drained
    assert all(answer.done() for answer in answers)


async def test_closed_refuses_who_waits_and_answers_who_runs(make: Callable[..., Batcher], model: Doubling) -> None:
    batcher = make()
    first = later(batcher, 1)
    await until(lambda: batcher.running == 1)
    second = later(batcher, 2)
    batcher.close()
    with pytest.raises(NotReady):
        await second
    with pytest.raises(NotReady):
        batcher.submit(request(3), ("y",))
    model.gate.set()
    assert (await first)[0][0, 0] == 2
    await batcher.drained()


async def test_an_executor_that_was_shut_down_is_told_as_such(model: Doubling) -> None:
    executor = ThreadPoolExecutor(1)
    batcher = Batcher(model.run, profile=profile(paying), settings=BatchingSettings(), executor=executor, hop=0.0)
    executor.shutdown()
    for answer in await asyncio.gather(*[later(batcher, value) for value in range(20)], return_exceptions=True):
        assert isinstance(answer, NotReady)


async def test_what_is_measured_while_it_serves_is_adopted_and_nobody_is_lost(model: Doubling) -> None:
    with ThreadPoolExecutor(1) as executor:
        settings = BatchingSettings(max_batch_size=8)
        batcher = Batcher(model.run, profile=unmeasured(), settings=settings, executor=executor, hop=0.0)
        before = [later(batcher, value, rows=2) for value in range(3)]
        await until(lambda: batcher.running == 1)
        batcher.adopt(profile(paying))
        after = [later(batcher, value, rows=2) for value in range(3, 6)]
        model.gate.set()
        answers = await asyncio.gather(*before, *after)
    assert sorted(model.runs) == [2, 2, 2, 6]
    assert [float(y[1, 0]) for (y,) in answers] == [2.0 * value for value in range(6)]


async def test_a_batch_that_runs_already_keeps_the_layout_that_it_was_made_with(
    make: Callable[..., Batcher], model: Doubling
) -> None:
    batcher = make()
    first = later(batcher, 1)
    await until(lambda: batcher.running == 1)
    rest = [later(batcher, value) for value in (2, 3, 4)]
    model.gate.set()
    await first
    model.gate.clear()
    await until(lambda: batcher.running == 3 or all(answer.done() for answer in rest))
    batcher.adopt(unmeasured())
    model.gate.set()
    assert [float(answer[0][0, 0]) for answer in await asyncio.gather(*rest)] == [4, 6, 8]


class TestInline:
    """What is quicker than a hop to another thread is answered at once."""

    def batcher(self, run: Any, executor: Executor, *, seconds: float, **options: Any) -> Batcher:
        known = profile(lambda rows: seconds * rows)
        return Batcher(run, profile=known, settings=BatchingSettings(), executor=executor, hop=0.5, **options)

    async def test_a_quick_model_answers_on_the_spot(self, model: Doubling) -> None:
        model.gate.set()
        notes = Notes()
        with ThreadPoolExecutor(1) as executor:
            batcher = self.batcher(model.run, executor, seconds=1e-5, observer=notes)
            for value in (1, 2, 3):
                answer = batcher.submit(request(value), ("y",))
                assert isinstance(answer, list)
                assert answer[0][0, 0] == 2 * value
        assert notes.runs == [1, 1, 1]
        assert notes.waits == []

    async def test_a_slow_model_does_not_stop_the_loop(self, model: Doubling) -> None:
        model.gate.set()
        with ThreadPoolExecutor(1) as executor:
            assert await later(self.batcher(model.run, executor, seconds=1.0), 1)

    async def test_a_large_request_to_a_quick_model_does_not_either(self, model: Doubling) -> None:
        model.gate.set()
        with ThreadPoolExecutor(1) as executor:
            batcher = self.batcher(model.run, executor, seconds=0.01)
            assert isinstance(batcher.submit(request(1), ("y",)), list)
            assert await later(batcher, 1, rows=100)

    async def test_a_quick_request_waits_for_nobody_who_runs_on_a_thread(self) -> None:
        gate = threading.Event()

        def run(names: Sequence[str], arrays: Mapping[str, Array]) -> list[Array]:
            if len(arrays["x"]) > 1:
                assert gate.wait(20)
            return [arrays["x"]]

        with ThreadPoolExecutor(1) as executor:
            batcher = self.batcher(run, executor, seconds=0.01)
            slow = later(batcher, 1, rows=100)
            await until(lambda: batcher.running == 1)
            assert isinstance(batcher.submit(request(2), ("y",)), list)
            gate.set()
            await slow

    async def test_its_error_is_raised_at_once(self, model: Doubling) -> None:
        model.gate.set()
        with ThreadPoolExecutor(1) as executor, pytest.raises(InvalidRequest):
            self.batcher(model.run, executor, seconds=1e-5).submit(request(-1), ("y",))

    async def test_a_model_that_turned_slow_leaves_the_loop(self) -> None:
        now = 0.0

        def run(names: Sequence[str], arrays: Mapping[str, Array]) -> list[Array]:
            nonlocal now
            now += 2.0
            return [arrays["x"]]

        with ThreadPoolExecutor(1) as executor:
            batcher = self.batcher(run, executor, seconds=0.4, clock=lambda: now)
            answers = [batcher.submit(request(1), ("y",)) for _ in range(10)]
            assert isinstance(answers[0], list)
            assert isinstance(answers[-1], asyncio.Future)
            await asyncio.gather(*[answer for answer in answers if isinstance(answer, asyncio.Future)])
            assert isinstance(batcher.submit(request(1), ("y",)), asyncio.Future)
            await batcher.drained()

    async def test_pauses_of_the_machine_do_not_drive_a_quick_model_off_the_loop(self) -> None:
        now = 0.0
        runs = 0

        def run(names: Sequence[str], arrays: Mapping[str, Array]) -> list[Array]:
            nonlocal now, runs
            runs += 1
            now += 10.0 if runs % 50 == 0 else 0.01
            return [arrays["x"]]

        with ThreadPoolExecutor(1) as executor:
            batcher = self.batcher(run, executor, seconds=0.01, clock=lambda: now)
            assert all(isinstance(batcher.submit(request(1), ("y",)), list) for _ in range(1000))

    async def test_a_model_that_is_quick_again_returns_to_the_loop(self) -> None:
        now, slow = 0.0, True

        def run(names: Sequence[str], arrays: Mapping[str, Array]) -> list[Array]:
            nonlocal now
            now += 2.0 if slow else 0.01
            return [arrays["x"]]

        with ThreadPoolExecutor(1) as executor:
            batcher = self.batcher(run, executor, seconds=0.01, clock=lambda: now)
            while isinstance(answer := batcher.submit(request(1), ("y",)), list):
                pass
            slow = False
            await answer
            assert isinstance(batcher.submit(request(1), ("y",)), list)

    def test_a_model_that_was_slow_is_tried_on_the_loop_again_ever_more_rarely(self) -> None:
        now = 0.0
        inline = Inline(1.0, lambda: now)
        quick = Profile((Point(1, 0.01, 5),))
        waited = []
        for _ in range(9):
            assert inline.admits(quick, 1, nbytes=4)
            while inline.nbytes >= 0:
                inline.ran(5.0, rows=1)
            began = now
            while not inline.admits(quick, 1, nbytes=4):
                inline.seen(5.0)
                now += 0.5
            waited.append(now - began)
        assert waited == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        now += 61.0
        while inline.nbytes >= 0:
            inline.ran(5.0, rows=1)
        assert not inline.admits(quick, 1, nbytes=4)
        now += 1.0
        assert inline.admits(quick, 1, nbytes=4)

    def test_a_run_that_many_share_may_take_longer_before_it_is_slow(self) -> None:
        quick = Profile((Point(1, 0.01, 5),))
        for requests, seconds, stays in ((1, 2.1, False), (16, 2.1, True), (16, 9.4, True), (16, 9.6, False)):
            inline = Inline(1.0, lambda: 0.0)
            assert inline.admits(quick, 1, nbytes=4)
            for _ in range(3):
                inline.ran(seconds, rows=requests, requests=requests)
            assert (inline.nbytes >= 0) is stays

    async def test_a_hop_takes_some_time(self) -> None:
        with ThreadPoolExecutor(1) as executor:
            assert 0 < await measure_hop(executor) < 1


class Simulated(Executor):
    """A thread whose runs take as long as ``latency`` says, of the virtual loop's time."""

    def __init__(self, latency: Callable[[int], float]) -> None:
        self._latency = latency
        self._worked = 0.0
        self.runs: list[int] = []

    def clock(self) -> float:
        return self._worked

    def run(self, names: Sequence[str], arrays: Mapping[str, Array]) -> list[Array]:
        self.runs.append(len(arrays["x"]))
        self._worked += self._latency(len(arrays["x"]))
        return [arrays["x"] * 2]

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        run = args[0]
        asyncio.get_running_loop().call_later(self._latency(run.rows), lambda: work(*args, **kwargs))
        return Future()


def simulate(
    scenario: Callable[[Batcher, Simulated, Notes], Awaitable[None]],
    latency: Callable[[int], float] = paying,
    **settings: Any,
) -> None:
    async def main() -> None:
        thread, notes = Simulated(latency), Notes()
        batcher = Batcher(
            thread.run,
            profile=profile(latency),
            settings=BatchingSettings(max_batch_size=8, **settings),
            executor=thread,
            observer=notes,
            hop=0.0,
            clock=thread.clock,
        )
        await scenario(batcher, thread, notes)

    virtualtime.run(main)


def test_with_a_target_those_who_would_be_late_are_refused_and_the_others_are_in_time() -> None:
    async def scenario(batcher: Batcher, thread: Simulated, notes: Notes) -> None:
        loop = asyncio.get_running_loop()
        outcomes: list[tuple[float, Overloaded | None]] = []

        async def ask() -> None:
            begun = loop.time()
            refusal = None
            try:
                await later(batcher, 1)
            except Overloaded as error:
                refusal = error
            outcomes.append((loop.time() - begun, refusal))

        tasks = []
        for _ in range(3000):
            tasks.append(asyncio.create_task(ask()))
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)
        answered = [seconds for seconds, error in outcomes if error is None]
        refused = [seconds for seconds, error in outcomes if error is not None]
        assert all(error.retry_after > 0 for _, error in outcomes if error is not None)
        assert max(answered) <= 0.1 + 1e-6
        assert max(refused) <= 0.1 + 1e-6
        # A thousand a second come, and batches of 8 carry 444.
        assert len(answered) > 0.9 * 444 * 3
        assert set(notes.refusals) == {"deadline"}
        assert len(notes.refusals) == len(refused)

    simulate(scenario, latency_target=0.1)


def test_without_a_target_all_are_answered_in_turn_and_nothing_is_delayed() -> None:
    async def scenario(batcher: Batcher, thread: Simulated, notes: Notes) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await later(batcher, 1)
        assert loop.time() - begun == pytest.approx(paying(1))
        await asyncio.gather(*[later(batcher, value) for value in range(200)])
        assert thread.runs == [1] + [8] * 25
        assert notes.refusals == []

    simulate(scenario)


def test_the_earliest_deadline_is_answered_first() -> None:
    async def scenario(batcher: Batcher, thread: Simulated, notes: Notes) -> None:
        order: list[int] = []
        first = later(batcher, 0)
        await asyncio.sleep(0.001)
        for name, deadline in enumerate((0.9, 0.5, 0.7)):
            answer = later(batcher, name, deadline=deadline)
            answer.add_done_callback(lambda _, name=name: order.append(name))  # type: ignore[misc]
        await first
        await batcher.drained()
        await asyncio.sleep(0)
        assert order == [1, 2, 0]

    # Batches do not pay, so that they run one by one.
    simulate(scenario, lambda rows: 0.010 * rows)


def test_a_deadline_that_gets_too_near_in_the_queue_is_answered_then_and_not_when_the_thread_is_free() -> None:
    async def scenario(_: Batcher, thread: Simulated, notes: Notes) -> None:
        loop = asyncio.get_running_loop()
        # Thought to take some milliseconds, and takes a second.
        batcher = Batcher(
            thread.run,
            profile=profile(paying),
            settings=BatchingSettings(),
            executor=thread,
            observer=notes,
            hop=0.0,
        )
        stuck = later(batcher, 1)
        await asyncio.sleep(0.001)
        with pytest.raises(Overloaded):
            await later(batcher, 2, deadline=0.2)
        assert loop.time() == pytest.approx(0.2 - paying(1), abs=0.005)
        assert (batcher.waiting, notes.refusals) == (0, ["deadline"])
        await stuck
        assert loop.time() == pytest.approx(1.0)

    simulate(scenario, lambda rows: 1.0)


def test_a_target_shorter_than_a_run_refuses_not_everybody() -> None:
    async def scenario(batcher: Batcher, thread: Simulated, notes: Notes) -> None:
        assert (await later(batcher, 1))[0][0, 0] == 2
        assert notes.refusals == []

    simulate(scenario, latency_target=0.001)


def test_an_estimate_that_is_far_too_high_heals_as_an_idle_server_tries() -> None:
    async def scenario(batcher: Batcher, thread: Simulated, notes: Notes) -> None:
        loop = asyncio.get_running_loop()
        stale = Batcher(
            thread.run,
            profile=profile(lambda rows: 10.0 * rows),
            settings=BatchingSettings(max_batch_size=8),
            executor=thread,
            observer=notes,
            hop=0.0,
            clock=thread.clock,
        )
        for value in range(60):
            await later(stale, value, deadline=loop.time() + 0.2)
        assert stale.profile(request(1)).latency(1) < 0.1
        assert notes.refusals == []

    simulate(scenario)
