"""Random lifetimes to plan, and random graphs. Pure."""

from __future__ import annotations

from random import Random

from openclaw.graph.lifetimes import Buffer, Dataflow, Step


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
        found.append(Buffer((f"t{number}",), _size(random), number, last))
    return found


def random_flow(seed: int, count: int) -> Dataflow:
    """A graph of as many steps, each of which makes a tensor of what the last steps made, and one in four of another
    one from anywhere before, as in networks with skipped layers; sizes as above. Half may be written over their input.
    """
    random = Random(seed)
    steps, in_place = [], []
    for number in range(count):
        uses = [f"t{number - random.randint(1, min(6, number))}" if number else "given"]
        if number and random.random() < 0.25:
            uses.append(f"t{random.randrange(number)}")
        steps.append(Step(tuple(uses), (f"t{number}",)))
        if random.random() < 0.5:
            in_place.append((f"t{number}", uses[0]))
    sizes = {f"t{number}": _size(random) for number in range(count)}
    return Dataflow(steps, sizes, in_place=in_place, kept=frozenset({f"t{count - 1}"}))


def _size(random: Random) -> int:
    return 64 * int(10 ** random.uniform(0, 3))
