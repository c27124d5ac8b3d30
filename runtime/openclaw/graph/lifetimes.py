"""When each intermediate tensor of a graph must be in memory, and how many bytes that takes at once. Pure.

Steps are numbered in the order of execution. A tensor lives from the step that makes it to the last one that uses it,
both included: while a step runs, its inputs and its outputs exist side by side. With the order given, the most bytes
that live at one step are the least that any planner without writing over inputs can do with (M. Pisarchyk and J. Lee
2020, arXiv:2001.03288, call it the lower bound of offset calculation).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate


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


def buffers(
    steps: Sequence[Step],
    sizes: Mapping[str, int],
    *,
    aliases: Iterable[tuple[str, str]] = (),
    kept: Collection[str] = (),
) -> list[Buffer]:
    """The memory that the steps need for what they make, in the order in which it is first needed.

    Args:
        steps: in the order of execution.
        sizes: bytes of each tensor; one that is missing takes none.
        aliases: pairs of tensors with the same bytes, as a Reshape's output and input. What shares the bytes of a
            tensor that no step makes (an input of the graph, a weight) needs no memory of its own.
        kept: tensors that stay until the end: the graph's outputs.
    """
    made = {name: number for number, step in enumerate(steps) for name in step.makes if name}
    until = dict(made)
    for number, step in enumerate(steps):
        for name in step.uses:
            if name in made:
                until[name] = max(until[name], number)
    for name in kept:
        if name in made:
            until[name] = max(len(steps) - 1, made[name])
    groups: dict[str, list[str]] = {}
    leader = _united(aliases)
    for name in sorted(made, key=lambda each: made[each]):
        groups.setdefault(_found(leader, name), []).append(name)
    given = {_found(leader, name) for name in leader if name not in made}
    found = [
        Buffer(
            names=tuple(names),
            size=max(sizes.get(name, 0) for name in names),
            first=min(made[name] for name in names),
            last=max(until[name] for name in names),
        )
        for head, names in groups.items()
        if head not in given
    ]
    return sorted(found, key=lambda each: each.first)


def live(every: Iterable[Buffer], steps: int) -> list[int]:
    """Bytes in use at each step."""
    changes = [0] * (steps + 1)
    for each in every:
        changes[each.first] += each.size
        changes[each.last + 1] -= each.size
    return list(accumulate(changes))[:steps]


def _united(aliases: Iterable[tuple[str, str]]) -> dict[str, str]:
    leader: dict[str, str] = {}
    for one, other in aliases:
        leader.setdefault(one, one)
        leader.setdefault(other, other)
        leader[_found(leader, one)] = _found(leader, other)
    return leader


def _found(leader: dict[str, str], name: str) -> str:
    """The name that stands for all that share its bytes; ways there are cut short, so that chains stay cheap."""
    while leader.get(name, name) != name:
        leader[name] = leader[leader[name]]
        name = leader[name]
    return name
