"""Plans an arena: where in one piece of memory each buffer lies, so that those that live together lie apart.

The best of several greedy placements is taken (``orders``, ``placing``); at the lower bound there is nothing
left to gain, else a search goes on from there (``search``). What it may spend is counted in steps and not in seconds:
the same buffers and seed give the same plan on every machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from openclaw.graph.lifetimes import Buffer
from openclaw.memory.blocks import Blocks, blocks
from openclaw.memory.orders import Order, by_area, by_breadth, by_conflicts, by_size
from openclaw.memory.placing import Placer
from openclaw.memory.search import searched

ALIGNMENT = 64
"""Bytes: a cache line, and a register of AVX-512."""
EFFORT = 60_000
"""Steps of very roughly a microsecond: of placing, and of the search where a placement can still be better."""
_MOST_ROUNDS = 5_000
_WAYS: tuple[tuple[str, Order, bool], ...] = (
    ("by size, lowest gap", by_size, False),
    ("by breadth, smallest gap", by_breadth, True),
    ("by area, lowest gap", by_area, False),
    ("by size, smallest gap", by_size, True),
    ("by breadth, lowest gap", by_breadth, False),
    ("by conflicts, smallest gap", by_conflicts, True),
    ("by area, smallest gap", by_area, True),
    ("by conflicts, lowest gap", by_conflicts, False),
)
"""Those first that are the best most often: on large sets not all of them fit into the effort."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where buffers lie.

    Attributes:
        buffers: what was planned.
        offsets: of each buffer, in bytes from the beginning of the arena; multiples of the alignment.
        alignment: in bytes; every buffer takes a multiple of it.
        arena_bytes: what is enough for all.
        lower_bound_bytes: the most that live at one step, which no plan of these lifetimes can do without.
        total_bytes: of all buffers: what a run would take that never gave memory back.
        method: what found it, as ``by size, lowest gap`` or ``search``.
    """

    buffers: tuple[Buffer, ...]
    offsets: tuple[int, ...]
    alignment: int
    arena_bytes: int
    lower_bound_bytes: int
    total_bytes: int
    method: str

    @property
    def fragmentation(self) -> float:
        """The share of the arena that is lost between buffers: 1 - lower bound / arena."""
        return 1 - self.lower_bound_bytes / self.arena_bytes if self.arena_bytes else 0.0

    @property
    def reuse(self) -> float:
        """The share of all bytes that are saved as buffers follow each other: 1 - arena / total."""
        return 1 - self.arena_bytes / self.total_bytes if self.total_bytes else 0.0


def plan(
    buffers: Sequence[Buffer],
    *,
    alignment: int = ALIGNMENT,
    seed: int = 0,
    effort: int = EFFORT,
    seconds: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Plan:
    """Plans the arena of these buffers.

    Args:
        buffers: in any order; one without a size lies at 0.
        alignment: in bytes, a power of two.
        seed: of the search.
        effort: steps, see ``EFFORT``; one greedy placement is always made.
        seconds: after which nothing further is tried, whatever effort is left; machines may then differ in their plans.
        clock: seconds that only rise.

    Raises:
        ValueError: a size is negative, a buffer ends before it begins, or the alignment is not a power of two.
    """
    _check(buffers, alignment)
    solid = [number for number, each in enumerate(buffers) if each.size]
    placing = blocks([buffers[number] for number in solid], alignment)
    until = None if seconds is None else clock() + seconds
    best = _best(placing, seed=seed, effort=effort, late=lambda: until is not None and clock() > until)
    offsets = [0] * len(buffers)
    for number, offset in zip(solid, best.offsets, strict=True):
        offsets[number] = offset
    return Plan(
        buffers=tuple(buffers),
        offsets=tuple(offsets),
        alignment=alignment,
        arena_bytes=best.arena,
        lower_bound_bytes=placing.bound,
        total_bytes=sum(placing.sizes),
        method=best.method,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """A placement, and the order in which blocks were placed."""

    offsets: list[int]
    arena: int
    method: str
    order: list[int]


def _best(placing: Blocks, *, seed: int, effort: int, late: Callable[[], bool]) -> _Found:
    if not placing.sizes:
        return _Found([], 0, "nothing to place", [])
    placer = Placer(placing)
    tried: list[_Found] = []
    for found in _greedy(placing, placer, effort=effort, late=late):
        if found.arena == placing.bound:
            return found
        tried.append(found)
    best = min(tried, key=lambda each: each.arena)
    rounds = min(_MOST_ROUNDS, effort // placer.cost - len(tried))
    if rounds <= 0 or late():
        return best
    offsets = searched(placing, placer, best.order, seed=seed, rounds=rounds, late=late)
    arena = placing.arena(offsets)
    return _Found(offsets, arena, "search", best.order) if arena < best.arena else best


def _greedy(placing: Blocks, placer: Placer, *, effort: int, late: Callable[[], bool]) -> Iterator[_Found]:
    """One placement after the other, as long as another one fits into the effort."""
    for number, (method, order, tight) in enumerate(_WAYS, start=1):
        if number > 1 and (number * placer.cost > effort or late()):
            return
        blocks_in_order = order(placing)
        offsets = placer.placed(blocks_in_order, tight=tight)
        yield _Found(offsets, placing.arena(offsets), method, blocks_in_order)


def _check(buffers: Sequence[Buffer], alignment: int) -> None:
    if alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"the alignment {alignment} is not a power of two; write for example 64")
    for each in buffers:
        name = each.names[0] if each.names else "without a name"
        if each.size < 0:
            raise ValueError(f"the buffer {name!r} has {each.size} bytes; none may have less than 0")
        if each.last < each.first:
            raise ValueError(f"the buffer {name!r} lives from step {each.first} to {each.last}, which is before it")
