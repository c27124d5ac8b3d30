"""What memory is measured on: the shapes that are timed, and a batch as large as requests may be served in together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np

from openclaw.devices.cpu import Grant
from openclaw.errors import InferenceFailed
from openclaw.graph.rows import rows_of, why_not_rows
from openclaw.optimizer.measuring.engine import Engine
from openclaw.optimizer.measuring.feeds import Inputs, random_feed
from openclaw.optimizer.recipe import Feed

RUNS = 60
"""Of the batch: about as many as it takes to compare some ways."""
_SHARE = 0.25
"""Of the memory that this process is granted: what a batch may take that is only made to be measured."""


def cases(
    engine: Engine, inputs: Inputs, timed: Sequence[Feed], *, most: int, seconds: float, held: int, grant: Grant
) -> list[Feed]:
    """Feeds to measure on, by rising size.

    Args:
        engine: with the model.
        inputs: of the model.
        timed: feeds of the user's shapes.
        most: rows of the batch that is added where the model's rows are free; 1: none is.
        seconds: that there are to measure; the batch has fewer rows where ``RUNS`` of it would take longer.
        held: bytes of activations that the largest of ``timed`` needs; fewer rows, where memory could run out.
        grant: what this process is granted.
    """
    ordered = sorted(timed, key=size)
    rows = rows_of(ordered[-1])
    if not rows or why_not_rows(engine.signature) is not None:
        return ordered
    began = time.perf_counter()
    engine.run(ordered[-1])
    seconds_of_row = (time.perf_counter() - began) / rows
    for count in _halved(most, above=rows):
        if grant.memory_bytes is not None and held * count / rows > _SHARE * grant.memory_bytes:
            continue
        if RUNS * count * seconds_of_row > seconds:
            continue
        shapes = {name: (count, *array.shape[1:]) for name, array in ordered[-1].items()}
        batch = random_feed(inputs, shapes, rng=np.random.default_rng(count))
        try:
            engine.run(batch)
        except InferenceFailed:
            break  # it takes one number of rows alone, whatever its signature says
        return [*ordered, batch]
    return ordered


def _halved(rows: int, *, above: int) -> Iterator[int]:
    while rows > above:
        yield rows
        rows //= 2


def size(feed: Feed) -> int:
    """Bytes of all inputs."""
    return sum(array.nbytes for array in feed.values())


def first_rows(feed: Feed, rows: int | None) -> Feed:
    """The part of a feed that is run at once where so many rows are; None: all of it."""
    total = rows_of(feed)
    if rows is None or total is None or total <= rows:
        return feed
    return {name: array[:rows] for name, array in feed.items()}


def fewer_rows(feed: Feed) -> list[int]:
    """Numbers of rows to run a batch in, the fewest first: powers of two."""
    total = rows_of(feed) or 1
    return [1 << power for power in range(total.bit_length()) if 1 << power < total]
