"""A graph's dataflow with numbers in the place of names: what its memory is in many orders of execution, quickly. Pure.

What does not depend on the order is found once: which tensors are views of one another, who makes and who reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from openclaw.graph.lifetimes import Buffer, Dataflow

_Row = npt.NDArray[np.int64]


class Lifetimes(NamedTuple):
    """When memory is needed in one order; of groups of tensors that are views of one another.

    Attributes:
        heads: for each group the one in whose memory it lies, perhaps its own.
        firsts: the place in the order from which each head is needed.
        lasts: the one after which it is free.
    """

    heads: list[int]
    firsts: list[int]
    lasts: list[int]


class _Pair(NamedTuple):
    """An output that may be written over an input of as many bytes: its name, and the groups of both."""

    output: str
    mine: int
    theirs: int


class Numbered:
    """A dataflow whose steps run in one order or another; no two of them make a tensor of one name.

    Attributes:
        flow: it.
        before: for each step those that make what it reads, each once, in the order of its inputs.
        sizes: bytes of each group of tensors that are views of one another and that the steps make.
        kept: which groups stay until the end.
        touched: for each step the groups that it reads or makes, in order, each once.
    """

    def __init__(self, flow: Dataflow) -> None:
        self.flow = flow
        steps = flow.steps
        makers = {name: number for number, step in enumerate(steps) for name in step.makes if name}
        self.before = [list(dict.fromkeys(makers[name] for name in step.uses if name in makers)) for step in steps]
        group = _grouped(flow, makers)
        self._names = list(group)
        self._makers = np.array([makers[name] for name in group], np.int64)
        self._group = list(group.values())
        self.kept = {group[name] for name in flow.kept if name in group}
        self.sizes = [0] * len(set(self._group))
        for name, number in group.items():
            self.sizes[number] = max(self.sizes[number], flow.sizes.get(name, 0))
        self.touched = [
            list(dict.fromkeys(group[name] for name in (*step.uses, *step.makes) if name in group)) for step in steps
        ]
        self._touching, self._starts = _by_group(self.touched)
        self._pairs = [
            _Pair(output, group[output], group[taken])
            for output, taken in flow.in_place
            if output in group and taken in group and self.sizes[group[output]] == self.sizes[group[taken]]
        ]
        self._written = np.array([makers[pair.output] for pair in self._pairs], np.int64)

    @property
    def own(self) -> list[int]:
        """The order in which the graph has its steps."""
        return list(range(len(self.flow.steps)))

    def lifetimes(self, order: Sequence[int]) -> Lifetimes:
        """When each group is needed, and which lie where others did."""
        heads = list(range(len(self.sizes)))
        if not heads:
            return Lifetimes([], [], [])
        places = _places(order)
        at = places[self._touching]
        firsts: list[int] = np.minimum.reduceat(at, self._starts).tolist()
        lasts: list[int] = np.maximum.reduceat(at, self._starts).tolist()
        for group in self.kept:
            lasts[group] = len(order) - 1
        self._write_over(Lifetimes(heads, firsts, lasts), places[self._written])
        return Lifetimes([_head(heads, group) for group in heads], firsts, lasts)

    def bound(self, order: Sequence[int], *, alignment: int = 1) -> int:
        """The most bytes that live at once, each buffer's a multiple of the alignment."""
        heads, firsts, lasts = self.lifetimes(order)
        if not heads:
            return 0
        apart = [group for group, head in enumerate(heads) if group == head]
        sizes = -(-np.array(self.sizes, np.int64)[apart] // alignment) * alignment
        changes = np.zeros(len(order) + 1, np.int64)
        np.add.at(changes, np.array(firsts)[apart], sizes)
        np.subtract.at(changes, np.array(lasts)[apart] + 1, sizes)
        return int(changes.cumsum().max())

    def buffers(self, order: Sequence[int]) -> list[Buffer]:
        """The memory that the steps need, in the order in which it is first needed."""
        heads, firsts, lasts = self.lifetimes(order)
        names: dict[int, list[str]] = {}
        for tensor in _places(order)[self._makers].argsort(kind="stable").tolist():
            names.setdefault(heads[self._group[tensor]], []).append(self._names[tensor])
        return [Buffer(tuple(each), self.sizes[head], firsts[head], lasts[head]) for head, each in names.items()]

    def _write_over(self, lifetimes: Lifetimes, made: _Row) -> None:
        """Unites an output with the input that it is written over, in the order in which the steps run."""
        heads, firsts, lasts = lifetimes
        kept, when = set(self.kept), made.tolist()
        placed: set[str] = set()
        for number in made.argsort(kind="stable").tolist():
            pair = self._pairs[number]
            mine, theirs = _head(heads, pair.mine), _head(heads, pair.theirs)
            if lasts[theirs] != when[number] or mine == theirs or theirs in kept or pair.output in placed:
                continue
            placed.add(pair.output)
            heads[mine] = theirs
            firsts[theirs] = min(firsts[theirs], firsts[mine])
            lasts[theirs] = lasts[mine]
            if mine in kept:
                kept.add(theirs)


def _grouped(flow: Dataflow, makers: Mapping[str, int]) -> dict[str, int]:
    """The group of each tensor that a step makes; none of those that are views of what no step makes."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(chain(makers, *flow.aliases)))}
    heads = list(range(len(numbers)))
    for one, other in flow.aliases:
        heads[_head(heads, numbers[one])] = _head(heads, numbers[other])
    given = {_head(heads, number) for name, number in numbers.items() if name not in makers}
    groups: dict[int, int] = {}
    return {
        name: groups.setdefault(head, len(groups))
        for name in makers
        if (head := _head(heads, numbers[name])) not in given
    }


def _head(heads: list[int], group: int) -> int:
    """In whose memory a group lies; ways there are cut short, so that chains stay cheap."""
    while (head := heads[group]) != group:
        heads[group] = group = heads[head]
    return group


def _by_group(touched: Sequence[Sequence[int]]) -> tuple[_Row, _Row]:
    """The steps that touch the first group, then those that do the next; and where those of each begin."""
    groups = np.array([group for each in touched for group in each], np.int64)
    steps = np.repeat(np.arange(len(touched)), [len(each) for each in touched])
    order = groups.argsort(kind="stable")
    return steps[order], np.flatnonzero(np.diff(groups[order], prepend=-1))


def _places(order: Sequence[int]) -> _Row:
    """At which place in the order each step runs."""
    places = np.empty(len(order), np.int64)
    places[np.array(order, np.int64)] = np.arange(len(order))
    return places
