"""Which arena suits a model: all that come into question are measured, for none is the best everywhere.

Measured on onnxruntime 1.31, activation memory held through the default's (16 rows at once, 2 threads):

========================================  ========  =========  =====  ===========
arena                                     ResNet50  Inception  U-Net  MobileNetV3
========================================  ========  =========  =====  ===========
same as requested                           0.43      0.43     0.71      0.77
pattern, giving back after new shapes       0.48      0.61     0.39      0.77
first region as large as the plan           0.43      0.68     0.71      0.64
first region half as large again            0.65      0.65     0.49      0.96
========================================  ========  =========  =====  ===========

A pattern without giving back holds up to 1.4x of the default, as the first run's chunks stay; cutting chunks exactly
changes little unless regions are large; giving back after every run holds no less while a model runs.
"""

from __future__ import annotations

from collections.abc import Mapping

from openclaw.memory.arena import Arena, Growth, Shrink
from openclaw.memory.profile import ArenaUse

DEFAULT = "default"
"""onnxruntime's own settings."""
SLOWER = 1.03
"""How much slower than with the default's arena a run may be."""
_REGION = 1 << 20
_SMALLEST_CHUNK = 256  # bytes: onnxruntime gives out multiples of it


def candidates(planned: int | None = None) -> dict[str, Arena | None]:
    """What comes into question, the simplest first, by name.

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


def choice(uses: Mapping[str, ArenaUse], slower: Mapping[str, float] | None = None) -> str:
    """The name of the arena that holds the least; of equals the first.

    Args:
        uses: what was measured of each, the default's among them.
        slower: latency through the default's; those above ``SLOWER`` are left out. One that is missing counts as 1.
    """
    timed = slower or {}
    quick = [name for name in uses if name == DEFAULT or timed.get(name, 1.0) <= SLOWER]
    return min(quick, key=lambda name: uses[name].held)
