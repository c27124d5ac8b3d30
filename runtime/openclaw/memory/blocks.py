"""The planning problem without names: rectangles, as wide as a buffer lives and as high as it is large. Pure.

Time is counted in moments: only the steps at which a buffer begins to live matter, for the most bytes live at one of
them, and two buffers live together at some step exactly if they do at one of these.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from openclaw.graph.lifetimes import Buffer


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks to be placed; all lists are in the same order.

    Attributes:
        sizes: bytes, multiples of the alignment, none of them zero.
        firsts: the moment from which each lives.
        ends: the moment from which it no longer does.
        loads: bytes that live at each moment.
    """

    sizes: list[int]
    firsts: list[int]
    ends: list[int]
    loads: list[int]

    @property
    def bound(self) -> int:
        """Bytes that no placement can do without: the most that live at one moment."""
        return max(self.loads, default=0)

    def conflicts(self) -> list[int]:
        """How many others each lives together with."""
        begun, ended = [0] * (len(self.loads) + 1), [0] * (len(self.loads) + 1)
        for first, end in zip(self.firsts, self.ends, strict=True):
            begun[first + 1] += 1
            ended[end] += 1
        begun, ended = list(accumulate(begun)), list(accumulate(ended))
        # Those that begin before its end, without those that ended by its beginning, without itself.
        return [begun[end] - ended[first] - 1 for first, end in zip(self.firsts, self.ends, strict=True)]

    def arena(self, offsets: Sequence[int]) -> int:
        """Bytes from the first offset to the last end."""
        return max((offset + size for offset, size in zip(offsets, self.sizes, strict=True)), default=0)


def aligned(size: int, alignment: int) -> int:
    """The smallest multiple that is not below `size`."""
    return -(-size // alignment) * alignment


def blocks(buffers: Sequence[Buffer], alignment: int) -> Blocks:
    """The blocks of buffers, none of which is empty."""
    starts = sorted({each.first for each in buffers})
    moment = {start: number for number, start in enumerate(starts)}
    sizes = [aligned(each.size, alignment) for each in buffers]
    firsts = [moment[each.first] for each in buffers]
    ends = [bisect_right(starts, each.last) for each in buffers]
    changes = [0] * (len(starts) + 1)
    for size, first, end in zip(sizes, firsts, ends, strict=True):
        changes[first] += size
        changes[end] -= size
    return Blocks(sizes, firsts, ends, list(accumulate(changes))[: len(starts)])
