"""In which order blocks are placed: what is hard to place comes first. Pure.

By size and by breadth are those of M. Pisarchyk and J. Lee 2020 (arXiv:2001.03288), by conflicts is that of Apache
TVM's unified static memory planner (RFC 0009); none is the best on every graph.
"""

from __future__ import annotations

from collections.abc import Callable

from openclaw.memory.blocks import Blocks

Order = Callable[[Blocks], list[int]]


def by_size(blocks: Blocks) -> list[int]:
    """The largest first."""
    return sorted(range(len(blocks.sizes)), key=lambda block: (-blocks.sizes[block], blocks.firsts[block]))


def by_breadth(blocks: Blocks) -> list[int]:
    """Moment by moment, those at which most bytes live first, and the largest of one first."""
    peaks = []
    for first, end in zip(blocks.firsts, blocks.ends, strict=True):
        alive = blocks.loads[first:end]
        most = max(alive)
        peaks.append((-most, first + alive.index(most)))
    return sorted(range(len(peaks)), key=lambda block: (peaks[block], -blocks.sizes[block]))


def by_conflicts(blocks: Blocks) -> list[int]:
    """Those first that live together with the most others."""
    count = blocks.conflicts()
    return sorted(range(len(count)), key=lambda block: (-count[block], -blocks.sizes[block]))


def by_area(blocks: Blocks) -> list[int]:
    """The largest product of size and lifetime first."""
    areas = [size * (end - first) for size, first, end in zip(blocks.sizes, blocks.firsts, blocks.ends, strict=True)]
    return sorted(range(len(areas)), key=lambda block: (-areas[block], -blocks.sizes[block]))
