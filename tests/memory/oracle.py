"""What plans are held against: overlaps found pair by pair, and the best plan of a few buffers, found by trying all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

from openclaw.graph.lifetimes import Buffer
from openclaw.memory.planner import Plan


def together(one: Buffer, other: Buffer) -> bool:
    """Whether some step needs both."""
    return one.first <= other.last and other.first <= one.last


def overlaps(plan: Plan) -> list[tuple[Buffer, Buffer]]:
    """Pairs of buffers that live together and have bytes in common."""
    placed = list(zip(plan.buffers, plan.offsets, strict=True))
    return [
        (one, other)
        for (one, a), (other, b) in combinations(placed, 2)
        if together(one, other) and a < b + other.size and b < a + one.size
    ]


def most_alive(buffers: Sequence[Buffer], alignment: int) -> int:
    """Bytes that live at the worst step, each buffer rounded up."""
    steps = {each.first for each in buffers}
    return max(
        (sum(_rounded(each, alignment) for each in buffers if each.first <= at <= each.last) for at in steps), default=0
    )


def least_arena(buffers: Sequence[Buffer], alignment: int) -> int:
    """The smallest arena there is, for at most seven buffers.

    In an optimal plan push every buffer down until it rests on another one or on the ground, the lowest first: that is
    no higher, and is what putting buffers down in the order of their offsets gives. So all orders are tried.
    """
    best = sum(_rounded(each, alignment) for each in buffers)
    for order in permutations(buffers):
        tops: list[tuple[Buffer, int]] = []
        for each in order:
            ground = max((top for other, top in tops if together(each, other)), default=0)
            tops.append((each, ground + _rounded(each, alignment)))
        best = min(best, max((top for _, top in tops), default=0))
    return best


def _rounded(each: Buffer, alignment: int) -> int:
    return (each.size + alignment - 1) // alignment * alignment
