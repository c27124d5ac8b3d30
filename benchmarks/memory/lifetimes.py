"""Random lifetimes to plan. Pure."""

from __future__ import annotations

from random import Random

from openclaw.graph.lifetimes import Buffer


def random_lifetimes(seed: int, count: int, *, longest: int | None = None) -> list[Buffer]:
    """One buffer a step, most of them short-lived, as in networks; sizes from one to a thousand times 64 bytes.

    With `longest` none is needed for more steps than that after its first; else one in four is until a random one.
    """
    random = Random(seed)
    found = []
    for number in range(count):
        if longest is None and random.random() < 0.25:
            last = random.randrange(number, count)
        else:
            last = min(count - 1, number + random.randint(1, longest or 6))
        size = 64 * int(10 ** random.uniform(0, 3))
        found.append(Buffer((f"t{number}",), size, number, last))
    return found
