"""When each intermediate tensor of a graph must be in memory, and how many bytes that takes at once. Pure.

Steps are numbered in the order of execution. A tensor lives from the step that makes it to the last one that uses it,
both included: while a step runs, its inputs and its outputs exist side by side, unless the step writes its output over
an input that nobody needs any more. With the order given, the most bytes that live at one step are the least that any
planner can do with (M. Pisarchyk and J. Lee 2020, arXiv:2001.03288, call it the lower bound of offset calculation).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Step:
    """One node: the tensors that it reads and makes; empty names (optional ones left out) count for nothing."""

    uses: Sequence[str]
    makes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory for one tensor, or for several that share it.

    Attributes:
        names: of the tensors, in the order in which they are made.
        size: in bytes: the largest of them.
        first: the step from which it is needed.
        last: the step after which it is free.
    """

    names: tuple[str, ...]
    size: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Dataflow:
    """All of a graph that its memory depends on.

    Attributes:
        steps: in the order of execution.
        sizes: bytes of each tensor; one that is missing takes none.
        aliases: pairs of tensors with the same bytes, as a Reshape's output and input. What shares the bytes of a
            tensor that no step makes (an input of the graph, a weight) needs no memory of its own.
        in_place: pairs of an output and an input of one step, the best first. The output takes the input's memory
            where the two have as many bytes, a step made the input, and nothing needs the input afterwards.
        kept: tensors that stay until the end: the graph's outputs.
    """

    steps: Sequence[Step]
    sizes: Mapping[str, int]
    aliases: Pairs = ()
    in_place: Pairs = ()
    kept: frozenset[str] = field(default_factory=frozenset)


def live(every: Iterable[Buffer], steps: int) -> list[int]:
    """Bytes in use at each step."""
    changes = [0] * (steps + 1)
    for each in every:
        changes[each.first] += each.size
        changes[each.last + 1] -= each.size
    return list(accumulate(changes))[:steps]
