"""Other orders in which a graph's nodes can run, and which of them needs the least memory. Pure.

The best order is NP-complete to find (B. Steiner et al. 2022, OLLA, arXiv:2210.12924), so two simple ones are tried:
to run next whatever leaves the least alive, and to follow each branch to its end before the next one begins.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence

from openclaw.graph.lifetimes import Dataflow
from openclaw.memory.blocks import blocks

_WINDOW = 8
"""Steps that are compared of those that could run next: the earliest in the graph's own order."""


def bound(flow: Dataflow, order: Sequence[int] | None = None, *, alignment: int = 1) -> int:
    """The most bytes that live at once when the steps run in this order, by default in their own."""
    return blocks([each for each in flow.buffers(order) if each.size], alignment).bound


def scheduled(flow: Dataflow, *, alignment: int = 1) -> list[int]:
    """The order that needs the least: the numbers of the steps; their own order unless another one needs less."""
    own = list(range(len(flow.steps)))
    best, least = own, bound(flow, alignment=alignment)
    for order in (frugal(flow), by_branch(flow)):
        needs = bound(flow, order, alignment=alignment)
        if needs < least:
            best, least = order, needs
    return best


def by_branch(flow: Dataflow) -> list[int]:
    """Backwards from the last steps: what a step needs runs before it, one input after the other, and nothing else."""
    before = _before(flow)
    used = {number for each in before for number in each}
    order: list[int] = []
    seen: set[int] = set()
    for last in range(len(flow.steps)):
        if last in used:
            continue
        waiting: list[tuple[int, Iterator[int]]] = [(last, iter(before[last]))]
        seen.add(last)
        while waiting:
            step, needs = waiting[-1]
            following = next((each for each in needs if each not in seen), None)
            if following is None:
                order.append(step)
                waiting.pop()
            else:
                seen.add(following)
                waiting.append((following, iter(before[following])))
    return order


def frugal(flow: Dataflow) -> list[int]:
    """Step by step, whichever of those that can run leaves the fewest bytes alive."""
    before = _before(flow)
    missing = [len(each) for each in before]
    after: list[list[int]] = [[] for _ in flow.steps]
    for step, needs in enumerate(before):
        for each in needs:
            after[each].append(step)
    alive = _Alive(flow)
    ready = [step for step, count in enumerate(missing) if not count]
    order: list[int] = []
    while ready:
        step = min(ready[:_WINDOW], key=lambda each: (alive.growth(each), each))
        ready.remove(step)
        order.append(step)
        alive.run(step)
        for each in after[step]:
            missing[each] -= 1
            if not missing[each]:
                insort(ready, each)
    return order


def _before(flow: Dataflow) -> list[list[int]]:
    """For each step those that make what it reads, each once, in the order of its inputs."""
    makers = {name: number for number, step in enumerate(flow.steps) for name in step.makes if name}
    return [list(dict.fromkeys(makers[name] for name in step.uses if name in makers)) for step in flow.steps]


class _Alive:
    """How much a step makes and how much it is the last one to need, while steps run in some order."""

    def __init__(self, flow: Dataflow) -> None:
        buffers = flow.buffers()
        groups = {name: number for number, each in enumerate(buffers) for name in each.names}
        self._sizes = [each.size for each in buffers]
        self._touched = [{groups[name] for name in (*step.uses, *step.makes) if name in groups} for step in flow.steps]
        self._left = [0] * len(self._sizes)
        for touched in self._touched:
            for each in touched:
                self._left[each] += 1
        # What stays until the end is needed by one more step, which never runs.
        for name in flow.kept & groups.keys():
            self._left[groups[name]] += 1
        self._begun = [False] * len(self._sizes)

    def growth(self, step: int) -> int:
        """Bytes that are alive after the step, less those before."""
        growth = 0
        for each in self._touched[step]:
            begins, ends = not self._begun[each], self._left[each] == 1
            growth += (begins - ends) * self._sizes[each]
        return growth

    def run(self, step: int) -> None:
        """The step has run."""
        for each in self._touched[step]:
            self._begun[each] = True
            self._left[each] -= 1
