"""What a model file says of the memory that it runs in: two of its properties, beside the one that names its engine.

``openclaw.arena``: settings of onnxruntime's arena as JSON, those left out that are :class:`Arena`'s own, so ``{}`` is
an arena that grows by what is asked for. ``openclaw.rows``: how many rows of a batch are run at once.

They were found by measurement where the model was optimized, and make no difference to its answers. So whatever cannot
be heeded is passed over, and only the log says so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from typing import Any

from openclaw.memory.arena import Arena, Growth, Shrink

log = logging.getLogger(__name__)

ARENA = "openclaw.arena"
ROWS = "openclaw.rows"

_MOST_BYTES = 1 << 40
_MOST_ROWS = 1 << 20
_ENUMS: Mapping[str, type[Enum]] = {"growth": Growth, "shrink": Shrink}


@dataclass(frozen=True, slots=True)
class Memory:
    """How a session of onnxruntime's own kernels holds activations.

    Attributes:
        arena: settings of its arena; None: onnxruntime's own.
        rows: of a batch that are run at once; None: all. Only for models whose rows are independent.
    """

    arena: Arena | None = None
    rows: int | None = None

    def __post_init__(self) -> None:
        """Refuses rows that cannot be."""
        if self.rows is not None and not 1 <= self.rows <= _MOST_ROWS:
            raise ValueError(f"rows is {self.rows}; it must be 1 to {_MOST_ROWS:,}, or None")

    def properties(self) -> dict[str, str]:
        """The properties of a model file that say so; none of what is onnxruntime's own."""
        found = {} if self.arena is None else {ARENA: written(self.arena)}
        return found if self.rows is None else {**found, ROWS: str(self.rows)}


def memory_of(properties: Mapping[str, str], *, source: str) -> Memory:
    """What a model's properties say.

    Args:
        properties: of the model file.
        source: what the log calls the file, where a property is passed over.
    """
    arena = rows = None
    if (text := properties.get(ARENA)) is not None:
        try:
            arena = read_arena(text)
        except ValueError as error:
            log.warning("%s: its property %s is passed over: %s", source, ARENA, error)
    if (text := properties.get(ROWS)) is not None:
        try:
            rows = _read_rows(text)
        except ValueError as error:
            log.warning("%s: its property %s is passed over: %s", source, ROWS, error)
    return Memory(arena, rows)


def written(arena: Arena) -> str:
    """Settings as ``read_arena`` reads them."""
    said: dict[str, Any] = {}
    for field in fields(Arena):
        value = getattr(arena, field.name)
        if value != field.default:
            said[field.name] = value.value if isinstance(value, Enum) else value
    return json.dumps(said, separators=(",", ":"))


def read_arena(text: str) -> Arena:
    """The settings that ``written`` wrote; raises ValueError, which names the setting and what is allowed."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {text[:80]!r}") from error
    if not isinstance(said, dict):
        raise ValueError(f"it is no JSON object: {text[:80]!r}")
    known = {field.name: field.default for field in fields(Arena)}
    return Arena(**{name: _read_setting(name, value, known) for name, value in said.items()})


def _read_setting(name: str, value: object, known: Mapping[str, object]) -> Any:
    own = known.get(name, MISSING)
    if own is MISSING:
        raise ValueError(f"there is no setting {name[:80]!r}; there are {', '.join(known)}")
    if name in _ENUMS:
        allowed = [each.value for each in _ENUMS[name]]
        if value not in allowed:
            raise ValueError(f"{name} is {str(value)[:80]!r}; allowed: {', '.join(allowed)}")
        return _ENUMS[name](value)
    if isinstance(own, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {str(value)[:80]!r}; allowed: true, false")
        return value
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_BYTES:
        raise ValueError(f"{name} is {str(value)[:80]!r}; allowed: 1 to {_MOST_BYTES:,} bytes")
    return value


def _read_rows(text: str) -> int:
    # A number of very many digits takes Python long to read.
    readable = text.isascii() and text.isdigit() and len(text) <= len(str(_MOST_ROWS))
    if not readable or not 1 <= int(text) <= _MOST_ROWS:
        raise ValueError(f"it is {text[:80]!r}; allowed: 1 to {_MOST_ROWS:,}")
    return int(text)
