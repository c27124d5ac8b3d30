"""Greedy placements: both ways of placing agree, and rest on what lies below."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from memory.drawing import buffer, some_buffers
from openclaw.graph.lifetimes import Buffer
from openclaw.memory.blocks import Blocks, blocks
from openclaw.memory.orders import by_area, by_breadth, by_conflicts, by_size
from openclaw.memory.placing import neighbours, placed_at_once, placed_by_neighbours


def of(buffers: list[Buffer]) -> Blocks:
    return blocks([each for each in buffers if each.size], 8)


@given(some_buffers(), st.randoms(use_true_random=False), st.booleans())
def test_both_ways_of_placing_give_the_same_offsets(buffers: list[Buffer], random: Random, tight: bool) -> None:
    some = of(buffers)
    order = list(range(len(some.sizes)))
    random.shuffle(order)
    one = placed_by_neighbours(some, order, neighbours(some), tight=tight)
    assert one == placed_at_once(some, order, tight=tight)


@given(some_buffers())
def test_conflicts_count_the_neighbours(buffers: list[Buffer]) -> None:
    some = of(buffers)
    assert some.conflicts() == [len(each) for each in neighbours(some)]


@given(some_buffers())
def test_every_order_has_every_block_once(buffers: list[Buffer]) -> None:
    some = of(buffers)
    for order in (by_size, by_breadth, by_conflicts, by_area):
        assert sorted(order(some)) == list(range(len(some.sizes)))


def test_a_block_goes_into_the_smallest_gap_or_into_the_lowest() -> None:
    # Those that live at step 3 leave gaps of 24 and of 16 bytes.
    gaps = of(
        [
            buffer(0, size=24, first=0, last=0),
            buffer(1, size=8, first=0, last=3),
            buffer(2, size=16, first=0, last=1),
            buffer(3, size=8, first=0, last=3),
            buffer(4, size=16, first=3, last=3),
        ]
    )
    order = [0, 1, 2, 3, 4]
    assert placed_by_neighbours(gaps, order, neighbours(gaps), tight=False)[4] == 0
    assert placed_by_neighbours(gaps, order, neighbours(gaps), tight=True)[4] == 32


def test_orders_put_first_what_they_are_called_after() -> None:
    some = of(
        [
            buffer(0, size=800, first=0, last=0),
            buffer(1, size=400, first=1, last=1),
            buffer(2, size=440, first=1, last=2),
            buffer(3, size=420, first=0, last=12),
        ]
    )
    assert by_size(some) == [0, 2, 3, 1]
    assert by_breadth(some) == [2, 3, 1, 0]
    assert by_conflicts(some)[0] == 3
    assert by_area(some)[:2] == [3, 0]


@given(some_buffers())
def test_blocks_placed_anew_from_the_lowest_up_come_to_lie_no_higher(buffers: list[Buffer]) -> None:
    some = of(buffers)
    before = placed_by_neighbours(some, by_breadth(some), neighbours(some), tight=True)
    upwards = sorted(range(len(before)), key=before.__getitem__)
    after = placed_by_neighbours(some, upwards, neighbours(some), tight=False)
    assert all(low <= high for low, high in zip(after, before, strict=True))
