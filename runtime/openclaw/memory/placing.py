"""Places blocks one after the other, each into a gap between those that it lives together with. Pure.

The gap is the smallest that it fits in (as in TensorFlow Lite's arena planner), or the lowest. Two ways give the same
offsets: one goes through the list of a block's neighbours, and is quick where few live together, as in most networks;
the other asks all placed blocks at once with numpy, and is quick where many do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from openclaw.memory.blocks import Blocks

Span = tuple[int, int]
_Row = npt.NDArray[np.int64]
_NO_GAP = np.iinfo(np.int64).max


class Placer:
    """Places the same blocks in one order or another.

    Attributes:
        cost: of one placement, in steps of very roughly a microsecond.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        count = len(blocks.sizes)
        met = sum(blocks.conflicts())
        by_neighbours, at_once = 2 * count + met // 6, 12 * count + count * count // 300
        self.cost = min(by_neighbours, at_once)
        self._neighbours = neighbours(blocks) if by_neighbours <= at_once else None

    def placed(self, order: Sequence[int], *, tight: bool) -> list[int]:
        """Offsets of all blocks, placed in this order: into the smallest gap if `tight`, else into the lowest."""
        if self._neighbours is None:
            return placed_at_once(self._blocks, order, tight=tight)
        return placed_by_neighbours(self._blocks, order, self._neighbours, tight=tight)


def neighbours(blocks: Blocks) -> list[list[int]]:
    """For every block those that it lives together with."""
    found: list[list[int]] = [[] for _ in blocks.sizes]
    alive: list[int] = []
    for block in sorted(range(len(blocks.sizes)), key=blocks.firsts.__getitem__):
        first = blocks.firsts[block]
        alive = [other for other in alive if blocks.ends[other] > first]
        for other in alive:
            found[other].append(block)
        found[block] += alive
        alive.append(block)
    return found


def placed_by_neighbours(
    blocks: Blocks, order: Sequence[int], near: Sequence[Sequence[int]], *, tight: bool
) -> list[int]:
    """Offsets, with each block's neighbours given."""
    spans: list[Span | None] = [None] * len(blocks.sizes)
    for block in order:
        size = blocks.sizes[block]
        taken = sorted(filter(None, map(spans.__getitem__, near[block])))
        at = _smallest(taken, size) if tight else _lowest(taken, size)
        spans[block] = (at, at + size)
    return [span[0] if span else 0 for span in spans]


def _lowest(taken: Sequence[Span], size: int) -> int:
    """The offset of the first gap between `taken`, which is in order, or of what lies above all."""
    reach = 0
    for start, stop in taken:
        if start - reach >= size:
            return reach
        reach = max(reach, stop)
    return reach


def _smallest(taken: Sequence[Span], size: int) -> int:
    """The offset of the smallest gap between `taken`; the lowest of equals."""
    reach, at, least = 0, -1, 0
    for start, stop in taken:
        gap = start - reach
        if gap >= size and (at < 0 or gap < least):
            at, least = reach, gap
        if stop > reach:
            reach = stop
    return reach if at < 0 else at


def placed_at_once(blocks: Blocks, order: Sequence[int], *, tight: bool) -> list[int]:
    """Offsets; what is placed so far stands in arrays that are sorted by offset."""
    count = len(blocks.sizes)
    offsets = [0] * count
    starts, stops = np.empty(count, np.int64), np.empty(count, np.int64)
    firsts, ends = np.empty(count, np.int32), np.empty(count, np.int32)
    for placed, block in enumerate(order):
        size, first, end = blocks.sizes[block], blocks.firsts[block], blocks.ends[block]
        near = ((firsts[:placed] < end) & (ends[:placed] > first)).nonzero()[0]
        at = _gap(starts[near], stops[near], size, tight=tight) if len(near) else 0
        place = int(starts[:placed].searchsorted(at))
        for column, value in ((starts, at), (stops, at + size), (firsts, first), (ends, end)):
            column[place + 1 : placed + 1] = column[place:placed]
            column[place] = value
        offsets[block] = at
    return offsets


def _gap(starts: _Row, stops: _Row, size: int, *, tight: bool) -> int:
    """As ``_smallest`` and ``_lowest`` do."""
    reach = np.zeros(len(starts) + 1, np.int64)
    np.maximum.accumulate(stops, out=reach[1:])
    gaps = starts - reach[:-1]
    fits = gaps >= size
    place = int(np.where(fits, gaps, _NO_GAP).argmin() if tight else fits.argmax())
    return int(reach[place] if fits[place] else reach[-1])
