"""The arenas that are compared, on their way to the process that uses one. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict

from openclaw.memory.arena import Arena, Growth, Shrink

CHOSEN = "chosen"
"""Whichever of the candidates holds the least in this case; what is measured against the targets."""


def written(arena: Arena) -> str:
    """The settings as ``read_arena`` reads them."""
    return json.dumps({**asdict(arena), "growth": arena.growth.value, "shrink": arena.shrink.value})


def read_arena(text: str) -> Arena:
    """The settings that ``written`` wrote."""
    fields = json.loads(text)
    return Arena(**{**fields, "growth": Growth(fields["growth"]), "shrink": Shrink(fields["shrink"])})
