"""Where the commands of this benchmark keep what they measured, so that a summary finds all of it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from benchmarks.graph.run import RESULTS
from benchmarks.records import Record

COMPARED, TIERS, PAUSES, BUFFERS = "memory", "memory-tiers", "memory-pauses", "memory-buffers"
"""Names of files: JSON to compute with, and a table to read."""
_Kept = TypeVar("_Kept", bound=Record)


def folder_of(results: Path | None, *, quick: bool) -> Path:
    """Where results go, made if need be: as was asked for; unasked, those of small models never beside the others."""
    folder = results or (RESULTS / "quick" if quick else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def earlier(kind: type[_Kept], folder: Path, *, name: str, part: bool) -> _Kept | None:
    """What an earlier run kept, for one that measures only a part; None for a run of everything, which is one run."""
    return kind.read(folder / f"{name}.json") if part else None
