"""L(b): interpolated, never falling, corrected by real runs."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw.errors import ConfigInvalid
from openclaw.serving.batching.lanes import Lane, Pending
from openclaw.serving.batching.latencies import MAX_SHAPES, Latencies
from openclaw.serving.batching.layout import ALONE, Form
from openclaw.serving.batching.overrun import Overrun
from openclaw.serving.batching.profile import (
    PAYS_BELOW,
    Point,
    Profile,
    batch_sizes,
    extended,
    guessed,
    mixed,
    monotone,
)
from openclaw.serving.batching.settings import BatchingSettings

SECONDS = st.floats(1e-6, 10.0)


def profile(*seconds: float, runs: int = 5) -> Profile:
    return Profile(tuple(Point(2**index, value, runs) for index, value in enumerate(seconds)))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    largest = draw(st.integers(1, 48))
    sizes = batch_sizes(largest)
    return Profile(tuple(Point(rows, draw(SECONDS), draw(st.integers(0, 9))) for rows in sizes))


@given(st.lists(st.tuples(SECONDS, st.floats(0.1, 10.0)), min_size=1, max_size=12))
def test_the_monotone_sequence_never_falls_and_keeps_the_weighted_mean(items: list[tuple[float, float]]) -> None:
    values, weights = [value for value, _ in items], [weight for _, weight in items]
    result = monotone(values, weights)
    assert all(a <= b * (1 + 1e-12) for a, b in pairwise(result))
    assert math.isclose(
        sum(v * w for v, w in zip(values, weights, strict=True)),
        sum(v * w for v, w in zip(result, weights, strict=True)),
    )


@given(st.lists(SECONDS, min_size=1, max_size=12))
def test_what_never_falls_already_is_left_alone(values: list[float]) -> None:
    values.sort()
    assert monotone(values, [1.0] * len(values)) == values


@given(profiles())
def test_a_larger_batch_is_never_thought_quicker(known: Profile) -> None:
    table = [known.latency(rows) for rows in range(1, 2 * known.largest + 2)]
    assert all(a <= b * (1 + 1e-12) for a, b in pairwise(table))


@given(profiles())
def test_no_row_costs_less_than_in_the_best_batch(known: Profile) -> None:
    assert 1 <= known.best <= known.largest
    assert all(known.latency(rows) / rows >= known.row_seconds for rows in range(1, known.largest + 1))
    assert known.pays == (known.latency(known.best) / known.best < PAYS_BELOW * known.latency(1))


@given(profiles(), st.floats(0, 20))
def test_the_rows_within_a_time_are_the_most_that_fit(known: Profile, seconds: float) -> None:
    rows = known.rows_within(seconds)
    assert rows == 0 or known.latency(rows) <= seconds
    assert rows == known.largest or known.latency(rows + 1) > seconds


@given(profiles(), st.lists(st.tuples(st.integers(1, 60), SECONDS), max_size=30))
def test_a_profile_stays_sound_whatever_is_observed(known: Profile, runs: list[tuple[int, float]]) -> None:
    for rows, seconds in runs:
        known = known.observed(rows, seconds)
    assert all(math.isfinite(known.latency(rows)) and known.latency(rows) >= 0 for rows in range(1, known.largest + 1))


def test_it_interpolates_between_what_was_measured() -> None:
    assert profile(1.0, 1.0, 3.0).latency(3) == pytest.approx(2.0)


def test_more_rows_than_the_largest_batch_cost_as_many_of_those_as_it_takes() -> None:
    assert profile(1.0, 1.5).latency(4) == pytest.approx(3.0)


def test_batches_pay_where_a_row_gets_cheaper() -> None:
    assert profile(1.0, 1.1, 1.3).pays
    assert "pays" in profile(1.0, 1.1, 1.3).reason


def test_batches_do_not_pay_where_the_gain_is_small_or_none() -> None:
    assert not profile(1.0, 1.9, 3.7).pays
    assert profile(1.0, 2.5, 5.5).best == 1
    assert "does not pay" in profile(1.0, 2.5, 5.5).reason


def test_real_runs_move_the_table_towards_them() -> None:
    known = profile(0.010, 0.012, 0.016)
    for _ in range(60):
        known = known.observed(4, 0.030)
    assert known.latency(4) == pytest.approx(0.030, rel=0.02)


def test_one_pause_of_the_machine_moves_it_only_a_little() -> None:
    known = profile(0.010, 0.012, 0.016, runs=20).observed(1, 5.0)
    assert known.latency(1) < 0.014


def test_the_first_run_replaces_a_guess() -> None:
    known = guessed(8).observed(1, 0.020)
    assert known.known
    assert known.latency(1) == pytest.approx(0.020)


def test_batches_that_never_ran_are_hoped_to_pay_so_that_they_are_tried() -> None:
    assert not guessed(8).known
    known = guessed(8).observed(1, 0.020)
    assert known.pays
    # Tried, and found not to pay: the hope is gone.
    for rows, seconds in ((2, 0.045), (4, 0.090), (8, 0.180)):
        known = known.observed(rows, seconds)
    assert not known.pays


def test_a_table_that_was_cut_short_goes_on_hopefully() -> None:
    known = extended([Point(1, 0.010, 5), Point(2, 0.012, 5)], 8)
    assert known.latency(8) == pytest.approx(0.012 * 4 * 0.8)


def test_between_two_lengths_lies_the_mean() -> None:
    assert mixed(profile(1.0, 2.0), profile(3.0, 6.0), share=0.5).latency(2) == pytest.approx(4.0)


@pytest.mark.parametrize("points", [(), (Point(2, 1.0, 1),), (Point(1, 1.0, 1), Point(1, 2.0, 1))])
def test_a_table_must_rise_from_one_row(points: tuple[Point, ...]) -> None:
    with pytest.raises(ValueError, match="rise from 1"):
        Profile(points)


@pytest.mark.parametrize(("largest", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])])
def test_powers_of_two_and_the_largest_are_measured(largest: int, sizes: list[int]) -> None:
    assert batch_sizes(largest) == sizes


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(1, 3)), max_size=30))
def test_a_lane_knows_when_its_head_must_start(steps: list[tuple[float, bool, int]]) -> None:
    lane = Lane("lane", profile(0.1, 0.2))
    for number, (deadline, add, rows) in enumerate(steps):
        if add or not lane.waiting:
            lane.add(Pending(deadline, number, rows, 0.0, deadline))
        elif rows == 1:
            assert lane.withdraw(lane.waiting[len(lane.waiting) // 2])
        else:
            lane.take(1)
        if rows == 3:
            lane.learn(profile(deadline + 0.1, deadline + 0.2))
        if lane.waiting:
            assert lane.head == min(lane.waiting)
            assert lane.latest_start == lane.head.deadline - lane.profile.latency(lane.head.rows)
        assert lane.rows == sum(request.rows for request in lane.waiting)


def test_whoever_does_not_wait_cannot_be_withdrawn() -> None:
    lane = Lane("lane", profile(0.1))
    lane.add(Pending(1.0, 1))
    assert not lane.withdraw(Pending(1.0, 2))
    assert lane.rows == 1


class TestOverrun:
    """What is kept free before a deadline."""

    def test_nine_of_ten_runs_end_within_it(self) -> None:
        overrun, random = Overrun(), Random(1)
        within = 0
        for run in range(6000):
            late = random.expovariate(100)
            within += run >= 1000 and late <= overrun.seconds
            overrun.ended(late)
        assert 0.85 < within / 5000 < 0.95

    def test_nothing_is_kept_free_for_runs_that_end_as_thought(self) -> None:
        overrun = Overrun()
        for _ in range(100):
            overrun.ended(0.0)
        assert overrun.ahead_of(5.0, 1.0) == 5.0

    def test_it_shrinks_again_once_runs_are_in_time(self) -> None:
        overrun = Overrun()
        for late in [1.0] * 50 + [-0.001] * 500:
            overrun.ended(late)
        assert overrun.seconds < 0.01

    def test_most_of_the_time_to_a_deadline_is_left_in_any_case(self) -> None:
        overrun = Overrun()
        for _ in range(100):
            overrun.ended(60.0)
        assert overrun.ahead_of(5.0, 1.0) == pytest.approx(4.0)


class TestLatencies:
    """What is known by shape and length."""

    def test_lengths_between_are_interpolated(self) -> None:
        known = Latencies({8: profile(1.0, 2.0), 16: profile(3.0, 6.0)}, largest=2)
        assert known.profile(Form(1, (), 12)).latency(1) == pytest.approx(2.0)

    def test_lengths_beyond_grow_in_proportion(self) -> None:
        known = Latencies({8: profile(1.0, 2.0), 16: profile(3.0, 6.0)}, largest=2)
        assert known.profile(Form(1, (), 32)).latency(1) == pytest.approx(6.0)
        assert known.profile(Form(1, (), 4)).latency(1) == pytest.approx(1.0)

    def test_runs_of_a_length_correct_its_neighbours(self) -> None:
        known = Latencies({8: profile(1.0, 2.0), 16: profile(3.0, 6.0)}, largest=2)
        for _ in range(300):
            known.observe(Form(1, (), 12), 1, seconds=4.0)
        assert known.profile(Form(1, (), 12)).latency(1) == pytest.approx(4.0, rel=0.05)

    def test_a_new_shape_is_learned_from_its_runs(self) -> None:
        known = Latencies({}, largest=4)
        form = Form(1, ((3, 224, 224),))
        assert not known.profile(form).known
        known.observe(form, 1, seconds=0.5)
        assert known.profile(form).latency(1) == pytest.approx(0.5)
        assert not known.profile(Form(1, ((3, 32, 32),))).known

    def test_memory_for_shapes_is_bounded_and_keeps_those_in_use(self) -> None:
        known = Latencies({}, largest=4)
        kept = Form(1, ((1,),))
        for size in range(2, 3 * MAX_SHAPES):
            known.observe(Form(1, ((size,),)), 1, seconds=0.5)
            known.observe(kept, 1, seconds=0.25)
        assert known.profile(kept).known
        assert not known.profile(Form(1, ((2,),))).known

    def test_what_runs_alone_is_never_hoped_to_batch(self) -> None:
        known = Latencies({0: profile(1.0, 1.1)}, largest=2)
        known.observe(ALONE, 1, seconds=0.5)
        assert known.profile(ALONE).largest == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_batch_size", 0),
        ("max_batch_size", True),
        ("max_batch_size", 2.5),
        ("max_queue_length", -1),
        ("max_queue_bytes", 0),
        ("latency_target", 0.0),
        ("latency_target", math.inf),
        ("latency_target", math.nan),
        ("padding", "always"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigInvalid, match=f"{field} is "):
        BatchingSettings(**{field: value})  # type: ignore[arg-type]
