"""Which way to hold activations suits a model: arenas, and how many rows of a batch are run at once. Pure.

All that come into question are measured, for none is the best everywhere. Measured on onnxruntime 1.31, activation
memory held through the default's (16 rows at once, 2 threads):

========================================  ========  =========  =====  ===========
arena                                     ResNet50  Inception  U-Net  MobileNetV3
========================================  ========  =========  =====  ===========
same as requested                           0.43      0.43     0.71      0.77
pattern, giving back after new shapes       0.48      0.61     0.39      0.77
first region as large as the plan           0.43      0.68     0.71      0.64
first region half as large again            0.65      0.65     0.49      0.96
========================================  ========  =========  =====  ===========

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
    """All but the default with so many rows at a time, the simplest first.

    Args:
        rows: that are run at once; None: all.
        planned: bytes of the arena that is planned for them, where there is a plan.
    """
    for arena, settings in candidates(planned).items():
        if rows is None and settings is None:
            continue
        by = "" if rows is None else f", {rows} {'row' if rows == 1 else 'rows'} at a time"
        yield Way(f"{arena}{by}", Memory(settings, rows))


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
    if planned:
        found["planned"] = _region(planned)
        found["planned and a quarter"] = _region(planned * 5 // 4)
        found["planned and half"] = _region(planned * 3 // 2)
    return found


def _region(size: int) -> Arena:
    return Arena(Growth.NEXT_POWER_OF_TWO, initial_bytes=size, largest_bytes=_REGION, dead_bytes=_SMALLEST_CHUNK)


def ranked(held: Mapping[str, Sequence[int]], default: Sequence[int]) -> list[str]:
    """Names of the ways that hold less than the default, those first that hold the least; of equals the first.

    Args:
        held: bytes by name of a way, one figure for each case; the last case is the largest.
        default: the same of onnxruntime's own arena; a way that holds more in any case is left out.
    """
    fewer = [
        name
        for name, figures in held.items()
        if figures[-1] < default[-1] and all(mine <= its for mine, its in zip(figures, default, strict=True))
    ]
    return sorted(fewer, key=lambda name: (held[name][-1], sum(held[name])))
