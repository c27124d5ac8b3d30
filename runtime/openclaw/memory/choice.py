"""Which way to hold activations suits a model: arenas, and how many rows of a batch are run at once. Pure.

All that come into question are measured, for none is the best everywhere. Measured on onnxruntime 1.31, activation
memory held through the default's (2 threads; one row, and 16 at once):

==========================================  ===========  ===========  ===========  ===========  ===========
arena                                       ResNet50     Inception    U-Net        MobileNetV3  BERT-base
==========================================  ===========  ===========  ===========  ===========  ===========
same as requested                           0.43, 0.43   0.72, 0.72   0.78, 0.71   0.66, 0.77   1.07, 0.94
pattern, giving back after new shapes       0.48, 0.48   0.75, 0.75   0.54, 0.39   0.66, 0.77   0.96, 0.89
first region as large as the plan           0.43, 0.43   0.68, 0.68   0.73, 0.71   1.11, 1.30   1.06, 0.92
first region as large as runs need          0.34, 0.34   0.48, 0.48   0.43, 0.39   0.56, 0.65   0.83, 0.72
==========================================  ===========  ===========  ===========  ===========  ===========

Latency of fewer rows at a time through that of 16 at once, on the same machine:

====  ========  =========  =====  ===========
rows  ResNet50  Inception  U-Net  MobileNetV3
====  ========  =========  =====  ===========
1         1.20       1.02   1.04         1.13
2         1.13       0.94   1.06         1.03
4         1.19       1.04   0.90         0.93
8         1.01       1.02   0.99         0.97
====  ========  =========  =====  ===========

A pattern without giving back holds up to 1.4x of the default, as the first run's chunks stay; cutting chunks exactly
changes little unless regions are large; giving back after every run holds no less while a model runs.

A region that was fitted to 16 rows was enough for 15, 12, 9, 7, 5, 3 and 1 rows of the same nets. What no run has
touched of a region takes no memory: with one fitted to 16 rows, processes that ran one row took 0.92 to 1.003 of what
they did with the default's arena (PSS).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from openclaw.memory.arena import Arena, Growth, Shrink
from openclaw.memory.properties import Memory

DEFAULT = "default"
"""onnxruntime's own settings, all rows at once."""
SLOWER = 1.03
"""How much of the default's latency a run may take."""
WORTH_WHILE = 4 << 20
"""Bytes: a model that holds no more in onnxruntime's own arena is left as it is. That begins with 1 MiB and doubles."""
_REGION = 1 << 20
_SMALLEST_CHUNK = 256  # bytes: onnxruntime gives out multiples of it


@dataclass(frozen=True, slots=True)
class Way:
    """One way, with the name that a report calls it by."""

    name: str
    memory: Memory


def ways(rows: int | None, planned: int | None) -> Iterator[Way]:
    """All but the default with so many rows at a time, and those that are found by trying; the simplest first.

    Args:
        rows: that are run at once; None: all.
        planned: bytes of the arena that is planned for them, where there is a plan.
    """
    for arena, settings in candidates(planned).items():
        if rows is not None or settings is not None:
            yield _way(arena, settings, rows)


def fitted(rows: int | None, size: int) -> Way:
    """The way with so many rows at a time whose first region has so many bytes, as runs were found to need."""
    return _way("fitted", region(size), rows)


def _way(arena: str, settings: Arena | None, rows: int | None) -> Way:
    by = "" if rows is None else f", {rows} {'row' if rows == 1 else 'rows'} at a time"
    return Way(f"{arena}{by}", Memory(settings, rows))


def candidates(planned: int | None = None) -> dict[str, Arena | None]:
    """The arenas that come into question, the simplest first, by name; None: onnxruntime's own.

    Args:
        planned: bytes of the plan's arena, where there is a plan.
    """
    found: dict[str, Arena | None] = {
        DEFAULT: None,
        "same as requested": Arena(),
        "pattern": Arena(pattern=True, shrink=Shrink.NEW_SHAPES),
    }
    return {**found, "planned": region(planned)} if planned else found


def region(size: int) -> Arena:
    """An arena whose first region has so many bytes, all of which are used before it grows."""
    return Arena(Growth.NEXT_POWER_OF_TWO, initial_bytes=size, largest_bytes=_REGION, dead_bytes=_SMALLEST_CHUNK)


def ranked(held: Mapping[Way, Sequence[int]], default: Sequence[int]) -> list[Way]:
    """The ways that hold less than the default, those first that hold the least; of equals the first.

    Args:
        held: bytes, one figure for each case; the last case is the largest.
        default: the same of onnxruntime's own arena; a way that holds more in any case is left out. Of one with a first
            region only the largest case counts: it holds as much in the others, but of what no run has touched nothing
            is in memory.
    """
    fewer = [way for way, figures in held.items() if _fewer(way, figures, default)]
    return sorted(fewer, key=lambda way: (held[way][-1], sum(held[way])))


def _fewer(way: Way, figures: Sequence[int], default: Sequence[int]) -> bool:
    if figures[-1] >= default[-1]:
        return False
    arena = way.memory.arena
    has_region = arena is not None and arena.initial_bytes is not None
    return has_region or all(mine <= its for mine, its in zip(figures, default, strict=True))
