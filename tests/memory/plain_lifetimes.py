"""Lifetimes found tensor by tensor, with names: what the quick way of ``openclaw.memory.numbered`` is held against."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from openclaw.graph.lifetimes import Buffer, Dataflow, Step


def plain_buffers(flow: Dataflow, order: Sequence[int] | None = None) -> list[Buffer]:
    """The memory that a graph needs when its steps run in this order, by default in their own."""
    steps = flow.steps if order is None else [flow.steps[number] for number in order]
    return _buffers(steps, flow.sizes, aliases=flow.aliases, in_place=flow.in_place, kept=flow.kept)


def _buffers(
    steps: Sequence[Step],
    sizes: Mapping[str, int],
    *,
    aliases: Iterable[tuple[str, str]] = (),
    in_place: Iterable[tuple[str, str]] = (),
    kept: Collection[str] = (),
) -> list[Buffer]:
    """The memory that the steps need for what they make, in the order in which it is first needed."""
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
