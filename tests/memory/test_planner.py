"""Plans: nothing that lives together overlaps, ever, and little is lost."""

from __future__ import annotations

import statistics
from itertools import chain, count

import pytest
from benchmarks.memory.lifetimes import random_lifetimes
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.drawing import buffer, some_buffers
from memory.oracle import least_arena, most_alive, overlaps
from openclaw.graph.lifetimes import Buffer
from openclaw.memory.planner import plan

ALIGNMENTS = st.sampled_from([1, 8, 64, 256])


@given(some_buffers(), ALIGNMENTS, st.integers(0, 3))
def test_no_two_buffers_that_live_together_overlap(buffers: list[Buffer], alignment: int, seed: int) -> None:
    found = plan(buffers, alignment=alignment, seed=seed, effort=3_000)
    assert overlaps(found) == []
    assert all(offset >= 0 for offset in found.offsets)
    assert all(offset + each.size <= found.arena_bytes for each, offset in zip(buffers, found.offsets, strict=True))


@given(some_buffers(), ALIGNMENTS)
def test_offsets_are_multiples_of_the_alignment(buffers: list[Buffer], alignment: int) -> None:
    found = plan(buffers, alignment=alignment, effort=1_000)
    assert [offset % alignment for offset in found.offsets] == [0] * len(buffers)
    assert found.arena_bytes % alignment == 0


@given(some_buffers(), ALIGNMENTS)
def test_the_arena_is_between_the_bound_and_all_bytes(buffers: list[Buffer], alignment: int) -> None:
    found = plan(buffers, alignment=alignment, effort=1_000)
    assert found.lower_bound_bytes == most_alive(buffers, alignment)
    assert found.lower_bound_bytes <= found.arena_bytes <= found.total_bytes
    assert 0 <= found.fragmentation < 1
    assert 0 <= found.reuse < 1


@given(some_buffers(), st.integers(0, 3))
def test_the_same_seed_gives_the_same_plan(buffers: list[Buffer], seed: int) -> None:
    assert plan(buffers, seed=seed, effort=3_000) == plan(buffers, seed=seed, effort=3_000)


@settings(deadline=None)
@given(some_buffers(most=5, steps=6), ALIGNMENTS)
def test_few_buffers_are_planned_as_well_as_trying_all_ways_does(buffers: list[Buffer], alignment: int) -> None:
    assert plan(buffers, alignment=alignment).arena_bytes == least_arena(buffers, alignment)


def test_the_search_finds_the_best_plan_of_seven_buffers_nearly_always() -> None:
    sets = [random_lifetimes(seed, 7) for seed in range(40)]
    lost = [plan(each).arena_bytes / least_arena(each, 64) for each in sets]
    assert min(lost) == 1
    assert sum(each == 1 for each in lost) >= 38
    assert max(lost) < 1.1


def test_the_search_gets_closer_to_the_bound_than_the_greedy_placements() -> None:
    sets = [random_lifetimes(seed, 40) for seed in range(60)]
    greedy = [plan(each, effort=0) for each in sets]
    searched = [plan(each) for each in sets]
    assert all(more.arena_bytes <= less.arena_bytes for more, less in zip(searched, greedy, strict=True))
    assert any(each.method == "search" for each in searched)
    assert statistics.mean(each.fragmentation for each in searched) < statistics.mean(
        each.fragmentation for each in greedy
    )


@pytest.mark.parametrize("alignment", [1, 64])
def test_nothing_and_empty_buffers_need_no_arena(alignment: int) -> None:
    for buffers in ([], [buffer(0, size=0, first=0, last=3), buffer(1, size=0, first=1, last=1)]):
        found = plan(buffers, alignment=alignment)
        assert (found.arena_bytes, found.fragmentation, found.reuse) == (0, 0.0, 0.0)
        assert found.offsets == (0,) * len(buffers)


def test_one_buffer_is_the_arena() -> None:
    found = plan([buffer(0, size=100, first=2, last=5)])
    assert (found.offsets, found.arena_bytes, found.lower_bound_bytes) == ((0,), 128, 128)


def test_what_is_all_alive_at_once_lies_side_by_side() -> None:
    found = plan([buffer(number, size=64 * (number + 1), first=number, last=20) for number in range(10)])
    assert found.arena_bytes == found.total_bytes == 64 * 55
    assert found.fragmentation == 0


def test_a_chain_needs_its_two_largest_neighbours() -> None:
    sizes = [640, 64, 1280, 128, 320]
    found = plan([buffer(number, size=size, first=number, last=number + 1) for number, size in enumerate(sizes)])
    assert found.arena_bytes == found.lower_bound_bytes == 1280 + 128


def test_numbers_of_steps_far_apart_cost_nothing() -> None:
    found = plan([buffer(number, size=64, first=number * 10**9, last=(number + 1) * 10**9) for number in range(3)])
    assert found.arena_bytes == 128


@pytest.mark.parametrize(
    ("wrong", "alignment", "said"),
    [
        (buffer(0, size=-1, first=0, last=0), 64, "'t0' has -1 bytes"),
        (buffer(0, size=1, first=3, last=2), 64, "lives from step 3 to 2"),
        (buffer(0, size=1, first=0, last=0), 48, "48 is not a power of two"),
        (buffer(0, size=1, first=0, last=0), 0, "0 is not a power of two"),
    ],
)
def test_what_is_no_plan_is_refused(wrong: Buffer, alignment: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan([wrong], alignment=alignment)


def test_two_hundred_random_sets_lose_less_than_a_hundredth_in_the_median() -> None:
    lost = [plan(random_lifetimes(seed, 20 + seed)).fragmentation for seed in range(200)]
    assert statistics.median(lost) < 0.01
    assert statistics.mean(lost) < 0.02
    assert statistics.quantiles(lost, n=10)[-1] < 0.06


def test_two_thousand_tensors_of_a_network_are_planned_at_the_bound() -> None:
    found = plan(random_lifetimes(0, 2_000, longest=12))
    assert overlaps(found) == []
    assert found.fragmentation < 0.03


def test_no_time_left_ends_the_search_and_still_gives_a_plan() -> None:
    buffers = next(each for each in (random_lifetimes(seed, 40) for seed in count()) if plan(each).method == "search")
    ticks = chain([0.0], count(10.0))
    hurried = plan(buffers, seconds=1.0, clock=lambda: next(ticks))
    assert hurried == plan(buffers, effort=0)
    assert overlaps(hurried) == []
