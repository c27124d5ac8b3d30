"""The smallest first region in which an arena fits is found by trying few sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from openclaw.memory.fitting import smallest_region

MIB = 1 << 20
PAGE = 4096


def enough_from(size: int, *, more: int) -> Callable[[int], int]:
    """An arena that fits in a region of so many bytes, and takes another region of ``more`` beside a smaller one."""
    return lambda region: region if region >= size else region + more


@given(needed=st.integers(MIB, 1 << 30), fragmented=st.floats(1, 2), more=st.floats(0, 2))
def test_hardly_more_is_held_than_in_the_smallest_region_that_is_enough(
    needed: int, fragmented: float, more: float
) -> None:
    enough = int(needed * fragmented)
    held = enough_from(enough, more=int(needed * more))
    found = smallest_region(held, needed=needed, below=needed * 3)
    assert found is not None
    assert found % PAGE == 0
    assert held(found) <= enough + needed / 50 + 2 * PAGE


@given(needed=st.integers(MIB, 1 << 30), below=st.floats(1, 8), drawn=st.randoms(use_true_random=False))
def test_whatever_arenas_do_what_is_found_is_the_least_of_the_few_that_were_tried(
    needed: int, below: float, drawn: Random
) -> None:
    tried: dict[int, int] = {}

    def held(size: int) -> int:
        tried[size] = size + drawn.choice([0, 0, 256, needed // 8, needed])
        return tried[size]

    least = int(needed * below)
    found = smallest_region(held, needed=needed, below=least)
    assert len(tried) <= 1 + math.log(below, 5 / 4) + 8
    assert all(needed < size < least for size in tried)
    best = min(tried.values(), default=least)
    assert tried.get(found or 0, least) == min(best, least)
    assert (found is None) == (best >= least)


def test_nothing_is_tried_where_another_arena_has_no_more_than_is_needed() -> None:
    def refused(size: int) -> int:
        raise AssertionError(size)

    assert smallest_region(refused, needed=MIB, below=MIB) is None


def test_where_time_is_up_the_best_so_far_is_taken() -> None:
    tried: list[int] = []

    def held(size: int) -> int | None:
        tried.append(size)
        return (9 * MIB, 8 * MIB, None)[len(tried) - 1]

    assert smallest_region(held, needed=4 * MIB, below=10 * MIB) == tried[1]
    assert smallest_region(lambda _: None, needed=4 * MIB, below=10 * MIB) is None
