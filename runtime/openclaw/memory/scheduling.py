"""Other orders in which a graph's nodes can run, and which of them needs the least memory. Pure.

The best order is NP-complete to find (B. Steiner et al. 2022, OLLA, arXiv:2210.12924), so two simple ones are tried:
to run next whatever leaves the least alive, and to follow each branch to its end before the next one begins.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator

from openclaw.memory.numbered import Numbered

_WINDOW = 8
"""Steps that are compared of those that could run next: the earliest in the graph's own order."""


def scheduled(graph: Numbered, *, alignment: int = 1) -> list[int]:
    """The order that needs the least: the numbers of the steps; their own order unless another one needs less."""
    best = graph.own
    least = graph.bound(best, alignment=alignment)
    for order in (frugal(graph), by_branch(graph)):
        needs = graph.bound(order, alignment=alignment)
        if needs < least:
            best, least = order, needs
    return best


def by_branch(graph: Numbered) -> list[int]:
    """Backwards from the last steps: what a step needs runs before it, one input after the other, and nothing else."""
    before = graph.before
    used = {number for each in before for number in each}
    order: list[int] = []
    seen: set[int] = set()
    for last in range(len(before)):
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


def frugal(graph: Numbered) -> list[int]:
    """Step by step, whichever of those that can run leaves the fewest bytes alive."""
    before = graph.before
    missing = [len(each) for each in before]
    after: list[list[int]] = [[] for _ in before]
    for step, needs in enumerate(before):
        for each in needs:
            after[each].append(step)
    alive = _Alive(graph)
    ready = [step for step, count in enumerate(missing) if not count]
    order: list[int] = []
    while ready:
        step = min(ready[:_WINDOW], key=alive.growth.__getitem__)  # the earliest of equals
        ready.remove(step)
        order.append(step)
        alive.run(step)
        for each in after[step]:
            missing[each] -= 1
            if not missing[each]:
                insort(ready, each)
    return order


class _Alive:
    """What is alive while steps run in some order.

    Attributes:
        growth: for each step that has not run the bytes that would be alive after it, less those before.
    """

    def __init__(self, graph: Numbered) -> None:
        heads, _, _ = graph.lifetimes(graph.own)
        self._sizes = graph.sizes
        self._touched = [{heads[group] for group in groups} for groups in graph.touched]
        self._touching: list[list[int]] = [[] for _ in heads]
        for step, touched in enumerate(self._touched):
            for group in touched:
                self._touching[group].append(step)
        # What stays until the end is needed by one more step, which never runs.
        kept = {heads[group] for group in graph.kept}
        self._left = [len(steps) + (group in kept) for group, steps in enumerate(self._touching)]
        self._begun = [False] * len(heads)
        self.growth = [
            sum(self._sizes[group] for group in touched if self._left[group] > 1) for touched in self._touched
        ]

    def run(self, step: int) -> None:
        """The step has run."""
        for group in self._touched[step]:
            if not self._begun[group]:
                self._begun[group] = True
                self._shrink(group)
            self._left[group] -= 1
            if self._left[group] == 1:
                self._shrink(group)

    def _shrink(self, group: int) -> None:
        """Those that touch it make it no more, or are the last to need it."""
        for step in self._touching[group]:
            self.growth[step] -= self._sizes[group]
