"""Searches for a better order in which to place blocks, each into its lowest gap. Pure.

Some order gives the best placement there is: take the best one and place its blocks anew, the lowest first, and none
comes to lie higher. So it is enough to search among orders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from math import factorial
from random import Random

from openclaw.memory.blocks import Blocks
from openclaw.memory.placing import Placer

_FEW = 6
"""Blocks of which all orders are tried."""


def searched(
    blocks: Blocks,
    placer: Placer,
    order: Sequence[int],
    *,
    seed: int,
    rounds: int,
    late: Callable[[], bool] = lambda: False,
) -> list[int]:
    """Offsets that give an arena at least as small as placing the blocks in this order does.

    Few blocks are tried in all orders, which is exact. Else each round changes the order a little, and the change stays
    unless it enlarges the arena.

    Args:
        blocks: to be placed.
        placer: of these blocks.
        order: to begin with.
        seed: of the changes.
        rounds: orders that are tried.
        late: asked in every round; ends the search.
    """
    if len(blocks.sizes) <= _FEW and factorial(len(blocks.sizes)) <= rounds:
        every = (placer.placed(each, tight=False) for each in permutations(range(len(blocks.sizes))))
        return min(every, key=blocks.arena)
    random, bound = Random(seed), blocks.bound
    offsets = placer.placed(order, tight=False)
    arena = blocks.arena(offsets)
    for _ in range(rounds):
        if arena <= bound or late():
            break
        changed = _changed(blocks, order, offsets, random=random, arena=arena)
        found = placer.placed(changed, tight=False)
        needs = blocks.arena(found)
        if needs <= arena:
            order, offsets, arena = changed, found, needs
    return offsets


def _changed(blocks: Blocks, order: Sequence[int], offsets: Sequence[int], *, random: Random, arena: int) -> list[int]:
    """Another order: a block that reaches the top comes earlier, or changes places, or one beside it in time moves."""
    changed = list(order)
    highest = [place for place, block in enumerate(order) if offsets[block] + blocks.sizes[block] == arena]
    top = random.choice(highest)
    kind = random.random()
    if kind < 0.5:
        changed.insert(random.randrange(top + 1), changed.pop(top))
        return changed
    first, end = blocks.firsts[order[top]], blocks.ends[order[top]]
    beside = [place for place, block in enumerate(order) if blocks.firsts[block] < end and blocks.ends[block] > first]
    other = random.choice(beside)
    if kind < 0.75:
        changed[top], changed[other] = changed[other], changed[top]
    else:
        changed.insert(random.randrange(len(order)), changed.pop(other))
    return changed
