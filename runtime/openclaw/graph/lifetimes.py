"""When each intermediate tensor of a graph must be in memory, and how many bytes that takes at once. Pure.

Steps are numbered in the order of execution. A tensor lives from the step that makes it to the last one that uses it,
both included: while a step runs, its inputs and its outputs exist side by side, unless the step writes its output over
an input that nobody needs any more. With the order given, the most bytes that live at one step are the least that any
planner can do with (M. Pisarchyk and J. Lee 2020, arXiv:2001.03288, call it the lower bound of offset calculation).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
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
        aliases: pairs of tensors with the same bytes, as a Reshape's output and input.
        in_place: pairs of an output and an input of one step that it may write the output over.
        kept: tensors that stay until the end: the graph's outputs.
    """

    steps: Sequence[Step]
    sizes: Mapping[str, int]
    aliases: Pairs = ()
    in_place: Pairs = ()
    kept: frozenset[str] = field(default_factory=frozenset)

    def buffers(self, order: Sequence[int] | None = None) -> list[Buffer]:
        """The memory that it needs when its steps run in this order, by default in their own."""
        steps = self.steps if order is None else [self.steps[number] for number in order]
        return buffers(steps, self.sizes, aliases=self.aliases, in_place=self.in_place, kept=self.kept)


def buffers(
    steps: Sequence[Step],
    sizes: Mapping[str, int],
    *,
    aliases: Iterable[tuple[str, str]] = (),
    in_place: Iterable[tuple[str, str]] = (),
    kept: Collection[str] = (),
) -> list[Buffer]:
    """The memory that the steps need for what they make, in the order in which it is first needed.

    Args:
        steps: in the order of execution.
        sizes: bytes of each tensor; one that is missing takes none.
        aliases: pairs of tensors with the same bytes, as a Reshape's output and input. What shares the bytes of a
            tensor that no step makes (an input of the graph, a weight) needs no memory of its own.
        in_place: pairs of an output and an input of one step, the best first. The output takes the input's memory
            where the two have as many bytes, a step made the input, and nothing needs the input afterwards.
        kept: tensors that stay until the end: the graph's outputs.
    """
    made = {name: number for number, step in enumerate(steps) for name in step.makes if name}
    until = _until(steps, made, kept)
    leader = _united(aliases)
    given = {_found(leader, name) for name in leader if name not in made}
    _write_over(leader, _Groups.of(leader, made, until=until, sizes=sizes, given=given, kept=kept), in_place)
    groups: dict[str, list[str]] = {}
    for name in sorted(made, key=lambda each: made[each]):
        groups.setdefault(_found(leader, name), []).append(name)
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


def _until(steps: Sequence[Step], made: Mapping[str, int], kept: Collection[str]) -> dict[str, int]:
    """The last step that needs each tensor."""
    until = dict(made)
    for number, step in enumerate(steps):
        for name in step.uses:
            if name in made:
                until[name] = max(until[name], number)
    for name in kept:
        if name in made:
            until[name] = max(len(steps) - 1, made[name])
    return until


@dataclass(frozen=True, slots=True)
class _Groups:
    """Tensors with the same bytes, by the name that stands for them.

    Attributes:
        made: the step that makes each tensor.
        until: the last step that needs any of a group.
        sizes: of the largest of a group.
        given: groups of the inputs and weights of the graph, which are not ours to write.
        kept: groups of its outputs.
    """

    made: Mapping[str, int]
    until: dict[str, int]
    sizes: dict[str, int]
    given: set[str]
    kept: set[str]

    @classmethod
    def of(
        cls,
        leader: dict[str, str],
        made: Mapping[str, int],
        *,
        until: Mapping[str, int],
        sizes: Mapping[str, int],
        given: set[str],
        kept: Collection[str],
    ) -> _Groups:
        ends: dict[str, int] = {}
        most: dict[str, int] = {}
        for name in made:
            head = _found(leader, name)
            ends[head] = max(ends.get(head, 0), until[name])
            most[head] = max(most.get(head, 0), sizes.get(name, 0))
        return cls(made, ends, most, given, {_found(leader, name) for name in kept})


def _write_over(leader: dict[str, str], groups: _Groups, pairs: Iterable[tuple[str, str]]) -> None:
    """Unites an output with the input that it is written over; in the order of execution, so that chains become one.

    ``leader`` and ``groups`` are changed.
    """
    made = groups.made
    placed: set[str] = set()
    for output, taken in sorted((pair for pair in pairs if pair[0] in made), key=lambda pair: made[pair[0]]):
        mine, theirs = _found(leader, output), _found(leader, taken)
        if output in placed or mine == theirs or groups.given & {mine, theirs} or theirs in groups.kept:
            continue
        if taken not in made or groups.until[theirs] != made[output] or groups.sizes[mine] != groups.sizes[theirs]:
            continue
        placed.add(output)
        leader.setdefault(theirs, theirs)
        leader[mine] = theirs
        groups.until[theirs] = groups.until[mine]
        if mine in groups.kept:
            groups.kept.add(theirs)


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
