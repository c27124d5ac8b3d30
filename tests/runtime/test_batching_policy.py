"""Decisions on a queue, in simulated time: every request is answered or refused, in order, and none in vain."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batching.queueing import NEVER, Arrival, Server, poisson
from openclaw.serving.batching.lanes import Lane, Pending
from openclaw.serving.batching.policy import Dispatch, Front, Shed, View, Wait, decide, expected_wait
from openclaw.serving.batching.profile import Point, Profile
from openclaw.serving.batching.selection import choose

REASONS = {"deadline", "expired"}


def affine(rows: int, length: int) -> float:
    """A run costs ten times what a row costs: batches pay."""
    return 0.010 + 0.001 * rows * max(length, 8) / 8


def proportional(rows: int, length: int) -> float:
    """No row is cheaper in company."""
    return 0.005 * rows * max(length, 8) / 8


def tokens(rows: int, length: int) -> float:
    """As a transformer on a processor: up to 32 tokens cost the same, more cost in proportion."""
    return 0.002 + 0.0002 * max(rows * length, 32)


LATENCIES = st.sampled_from([affine, proportional, tokens])


@st.composite
def loads(draw: st.DrawFn, *, deadlines: bool = True, lengths: tuple[int, ...] = (8, 9, 16, 30, 64)) -> list[Arrival]:
    deadline = st.one_of(st.just(NEVER), st.floats(0.001, 1.0)) if deadlines else st.just(NEVER)
    arrival = st.builds(
        Arrival,
        at=st.floats(0, 0.3),
        rows=st.sampled_from([1, 1, 1, 2, 5, 20]),
        length=st.sampled_from(lengths),
        deadline=deadline,
    )
    return draw(st.lists(arrival, min_size=1, max_size=40))


SERVERS = st.fixed_dictionaries(
    {
        "latency": LATENCIES,
        "largest": st.sampled_from([1, 4, 16]),
        "workers": st.integers(1, 3),
        "defers": st.booleans(),
        "interval": st.sampled_from([None, 0.0005, 0.005, 0.5]),
    }
)


@given(loads(), SERVERS)
def test_each_request_is_answered_or_refused_exactly_once(load: list[Arrival], how: dict[str, object]) -> None:
    server = Server(**how).serve(load)  # type: ignore[arg-type]
    assert sorted([*server.ended, *server.shed]) == list(range(len(load)))
    ran = Counter(number for _, _, numbers in server.batches for number in numbers)
    assert set(ran.values()) <= {1}
    assert set(server.shed.values()) <= REASONS


@given(loads(), SERVERS)
def test_no_batch_is_larger_than_allowed_unless_it_is_one_request(load: list[Arrival], how: dict[str, object]) -> None:
    server = Server(**how).serve(load)  # type: ignore[arg-type]
    for _, length, numbers in server.batches:
        rows = sum(load[number].rows for number in numbers)
        assert rows <= server.largest or len(numbers) == 1
        assert length == max(load[number].length for number in numbers)


@given(loads(), SERVERS)
def test_nobody_overtakes_whoever_is_due_earlier_in_a_lane(load: list[Arrival], how: dict[str, object]) -> None:
    def check(view: View, decision: object) -> None:
        if isinstance(decision, Dispatch):
            taken = 0
            for lane, count in decision.batch.takes:
                assert count >= 1
                assert lane.waiting == sorted(lane.waiting)
                taken += sum(request.rows for request in lane.waiting[:count])
            assert taken == decision.batch.rows
            heads = {lane.key for lane, _ in decision.batch.takes}
            # Whoever is due first of all is in it, unless it is held back for the next arrival.
            assert view.defers or min(view.lanes, key=lambda lane: lane.head).key in heads

    Server(**how, on_decision=check).serve(load)  # type: ignore[arg-type]


@given(loads(deadlines=False), SERVERS)
def test_without_deadlines_no_worker_stands_still_while_somebody_waits(
    load: list[Arrival], how: dict[str, object]
) -> None:
    def check(view: View, decision: object) -> None:
        if isinstance(decision, Wait):
            assert not (view.idle and view.lanes)

    server = Server(**how, on_decision=check).serve(load)  # type: ignore[arg-type]
    assert not server.shed


@given(loads(), SERVERS)
def test_a_batch_is_in_time_for_all_in_it_but_a_lone_last_hope(load: list[Arrival], how: dict[str, object]) -> None:
    server = Server(**how).serve(load)  # type: ignore[arg-type]
    for began, length, numbers in server.batches:
        if len(numbers) > 1:
            end = began + server.latency(sum(load[number].rows for number in numbers), length)
            assert all(end <= load[number].at + load[number].deadline + 1e-9 for number in numbers)


@given(loads(), SERVERS)
def test_nobody_is_refused_who_could_still_run_alone_in_time_unless_a_batch_full_waits(
    load: list[Arrival], how: dict[str, object]
) -> None:
    def check(view: View, decision: object) -> None:
        if isinstance(decision, Shed) and view.idle:
            for lane, requests, _ in decision.fronts:
                for request in lane.waiting[:requests]:
                    late = view.now + lane.profile.latency(request.rows) > request.deadline
                    assert late or lane.rows > requests

    Server(**how, on_decision=check).serve(load)  # type: ignore[arg-type]


@given(loads(deadlines=False), st.integers(1, 3))
def test_where_batches_do_not_pay_everyone_runs_alone(load: list[Arrival], workers: int) -> None:
    server = Server(proportional, workers=workers).serve(load)
    assert all(len(numbers) == 1 for _, _, numbers in server.batches)


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_a_request_without_deadline_is_not_starved_by_those_with_one(seed: int) -> None:
    rate = 0.97 * 32 / affine(32, 0)
    load = [*poisson(rate, 4, seed=seed, deadline=0.4), Arrival(1.0, length=8)]
    server = Server(affine).serve(load)
    assert server.ended[len(load) - 1] < 1.0 + 1.5


@pytest.mark.parametrize("overload", [1.5, 4.0])
def test_in_overload_nearly_the_whole_capacity_is_answered_in_time(overload: float) -> None:
    capacity = 32 / affine(32, 0)
    load = poisson(overload * capacity, 5, seed=7, deadline=0.3)
    server = Server(affine).serve(load)
    assert server.in_time(load) > 0.9 * capacity * 5


def test_without_refusing_anybody_in_overload_nobody_is_in_time() -> None:
    """What the test above is about: a queue in order of arrival, at the same load."""
    capacity = 32 / affine(32, 0)
    load = poisson(1.5 * capacity, 5, seed=7, deadline=0.3)
    patient = [Arrival(arrival.at, arrival.rows, arrival.length) for arrival in load]
    assert Server(affine).serve(patient).in_time(load) < 0.3 * capacity * 5


def test_batching_carries_more_than_running_alone() -> None:
    load = poisson(400, 5, seed=3, deadline=0.2)
    together, alone = Server(affine).serve(load), Server(affine, largest=1).serve(load)
    assert together.in_time(load) > 3 * alone.in_time(load)
    assert together.in_time(load) > 0.99 * len(load)


def test_mixed_lengths_share_runs_where_short_ones_cost_as_much_as_longer() -> None:
    load = poisson(150, 4, seed=5, lengths=(4, 5, 6, 7, 8), deadline=0.5)
    together, alone = Server(tokens).serve(load), Server(tokens, largest=1).serve(load)
    assert any(len({load[number].length for number in numbers}) > 1 for _, _, numbers in together.batches)
    assert together.in_time(load) > alone.in_time(load)


def test_a_short_sequence_is_not_filled_up_to_a_much_longer_one() -> None:
    load = [Arrival(0.0, length=8), Arrival(0.0, length=64), Arrival(0.0, length=8)]
    server = Server(affine).serve(load)
    assert sorted(sorted(numbers) for _, _, numbers in server.batches) == [[0, 2], [1]]


class TestSharingARun:
    """Sequences of different lengths, where every run takes about the same time: all that fit should share one."""

    def lane(self, length: int, *requests: tuple[float, int]) -> Lane:
        profile = Profile(tuple(Point(rows, 0.010 + 0.0001 * rows, 5) for rows in (1, 2, 4, 8)))
        lane = Lane(length, profile, "sequences", length)
        for number, (deadline, rows) in enumerate(requests):
            lane.add(Pending(deadline, 100 * length + number, rows, 0.0, deadline))
        return lane

    def taken(self, lane: Lane, *others: Lane) -> dict[int, int]:
        batch = choose(lane, others, limit=8, now=0.0)
        rows = sum(request.rows for taken, count in batch.takes for request in taken.waiting[:count])
        assert batch.rows == rows
        return {taken.length: count for taken, count in batch.takes}

    def test_all_that_fit_share_it(self) -> None:
        assert self.taken(self.lane(8, (1.0, 1)), self.lane(9, (1.1, 1)), self.lane(10, (1.2, 1), (1.3, 1))) == {
            8: 1,
            9: 1,
            10: 2,
        }

    def test_whoever_would_be_late_in_it_is_not_in_it(self) -> None:
        head, tight = self.lane(8, (0.0101, 1)), self.lane(9, (0.5, 1))
        assert self.taken(head, tight) == {8: 1}
        assert self.taken(self.lane(9, (0.5, 1)), self.lane(8, (0.5001, 1))) == {9: 1, 8: 1}

    def test_one_that_does_not_fit_is_not_overtaken_by_those_behind_it(self) -> None:
        assert self.taken(self.lane(8, (1.0, 1)), self.lane(9, (1.1, 8), (1.2, 1)), self.lane(10, (1.3, 1))) == {
            8: 1,
            10: 1,
        }

    def test_those_more_than_twice_as_long_are_left_to_themselves(self) -> None:
        assert self.taken(self.lane(8, (1.0, 1)), self.lane(17, (1.1, 1)), self.lane(3, (1.1, 1))) == {8: 1}

    def test_a_batch_is_as_long_as_its_longest(self) -> None:
        lanes = [self.lane(length, (1.0 + length, 1)) for length in (8, 11, 12)]
        assert choose(lanes[0], lanes[1:], limit=2, now=0.0).length == 11


class TestHoldingBack:
    """With a latency target a batch may wait for the next arrival, if that saves work."""

    def profile(self) -> Profile:
        return Profile((Point(1, 0.010, 5), Point(2, 0.011, 5), Point(4, 0.012, 5)))

    def view(self, *, now: float = 0.0, deadline: float = 1.0, arrival: float, defers: bool = True) -> View:
        lane = Lane("lane", self.profile())
        lane.add(Pending(deadline, 1, 1, 0.0, deadline))
        return View(now, 1, 1, [lane], 4, defers, {"lane": arrival})

    def test_it_waits_for_an_arrival_that_saves_more_than_the_wait(self) -> None:
        assert decide(self.view(arrival=0.005)) == Wait(0.005)

    @pytest.mark.parametrize(
        ("arrival", "deadline", "why"),
        [
            (0.0095, 1.0, "the worker would stand still for longer than it saves"),
            (0.005, 0.016, "the larger batch would be too late"),
            (-0.001, 1.0, "the arrival is overdue"),
        ],
    )
    def test_it_does_not_wait_when(self, arrival: float, deadline: float, why: str) -> None:
        assert isinstance(decide(self.view(arrival=arrival, deadline=deadline)), Dispatch), why

    def test_it_never_waits_without_a_target(self) -> None:
        assert isinstance(decide(self.view(arrival=0.005, defers=False)), Dispatch)

    def test_it_runs_once_the_arrival_is_due(self) -> None:
        assert isinstance(decide(self.view(now=0.005, arrival=0.005)), Dispatch)

    def test_meanwhile_another_lane_may_run_if_it_ends_in_time(self) -> None:
        view = self.view(arrival=0.005)
        other = Lane("other", Profile((Point(1, 0.004, 5),)))
        other.add(Pending(2.0, 2, 1, 0.0, 2.0))
        decision = decide(View(0.0, 1, 1, [*view.lanes, other], 4, True, view.arrivals))
        assert isinstance(decision, Dispatch)
        assert decision.batch.takes == ((other, 1),)


class TestRunningBeside:
    """A run more may share the cores of those that are under way, where that costs nobody a better batch."""

    def view(self, waiting: int, *points: Point, spare: bool = True) -> View:
        lane = Lane("lane", Profile(points))
        for number in range(waiting):
            lane.add(Pending(math.inf, number, 1, 0.0, math.inf))
        return View(0.0, 0, 1, [lane], 4, spare=spare)

    def rows(self, view: View) -> int | None:
        decision = decide(view)
        return decision.batch.rows if isinstance(decision, Dispatch) else None

    def test_where_batches_do_not_pay_each_request_may(self) -> None:
        alone = (Point(1, 0.010, 5), Point(2, 0.020, 5), Point(4, 0.040, 5))
        assert self.rows(self.view(1, *alone)) == 1
        assert self.rows(self.view(3, *alone)) == 1

    def test_where_they_pay_only_the_best_batch_may(self) -> None:
        paying = (Point(1, 0.010, 5), Point(2, 0.012, 5), Point(4, 0.016, 5))
        assert [self.rows(self.view(waiting, *paying)) for waiting in (1, 3, 4, 9)] == [None, None, 4, 4]

    def test_a_short_run_waits_for_its_turn(self) -> None:
        assert self.rows(self.view(4, Point(1, 0.001, 5))) is None

    def test_without_one_to_spare_everybody_waits(self) -> None:
        assert decide(self.view(4, Point(1, 0.010, 5), spare=False)) == Wait(None)


class TestRefusing:
    """What cannot be in time is refused as soon as that is known."""

    def lane(self, *deadlines: float) -> Lane:
        lane = Lane("lane", Profile((Point(1, 0.010, 5), Point(2, 0.012, 5))))
        for number, deadline in enumerate(deadlines):
            lane.add(Pending(deadline, number, 1, 0.0, deadline))
        return lane

    def test_what_expired_is_told_from_what_is_too_late(self) -> None:
        lane = self.lane(0.5, 1.005, 9.0)
        first = decide(View(1.0, 1, 1, [lane], 2))
        assert first == Shed((Front(lane, 1, "expired"),), pytest.approx(3 * 0.006))
        lane.take(1)
        second = decide(View(1.0, 1, 1, [lane], 2))
        assert second == Shed((Front(lane, 1, "deadline"),), pytest.approx(2 * 0.006))

    def test_with_no_worker_idle_it_wakes_when_the_first_gets_too_late(self) -> None:
        assert decide(View(1.0, 0, 1, [self.lane(1.5)], 2)) == Wait(pytest.approx(1.49))

    def test_an_idle_server_tries_the_last_one_as_the_estimate_may_be_wrong(self) -> None:
        lane = self.lane(1.001, 1.002)
        refused = decide(View(1.0, 1, 1, [lane], 2))
        assert refused == Shed((Front(lane, 1, "deadline"),), pytest.approx(2 * 0.006))
        lane.take(1)
        assert isinstance(decide(View(1.0, 1, 1, [lane], 2)), Dispatch)

    def test_nothing_waits_and_nothing_is_to_be_done(self) -> None:
        assert decide(View(0.0, 1, 1, [], 2)) == Wait(None)

    def test_the_wait_that_a_newcomer_expects_grows_with_the_queue(self) -> None:
        short, long = self.lane(math.inf), self.lane(*[math.inf] * 9)
        waits = [expected_wait(lane, 1, before=0.003 + lane.work) for lane in (short, long)]
        assert waits == [pytest.approx(0.003 + 0.006 + 0.012), pytest.approx(0.003 + 9 * 0.006 + 0.012)]
