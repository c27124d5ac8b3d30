"""What an arena held, read from the profile that onnxruntime writes of a session's runs.

Every event of a node has the figures of the allocator after the node ran (onnxruntime 1.31 writes them, much older
versions do not): bytes that are in use, and what the arena holds, in use or not. Weights that were repacked lie in the
arena too; they were in use before the first node ran.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ArenaUse:
    """Bytes that an arena had for activations.

    Attributes:
        weights: what was in use before the first node ran; the others are without it.
        most_held: the most that it held after any node of any run.
        held: the most that it held after any node of the last run: what a server holds that runs on.
        most_in_use: the most that was in use after any node.
    """

    weights: int
    most_held: int
    held: int
    most_in_use: int


def arena_use(events: Iterable[Mapping[str, Any]]) -> ArenaUse:
    """The figures of a profile, a list of events as JSON has them, in the order in which they happened.

    Raises:
        ValueError: no node has any: this onnxruntime writes none, or the session had no arena.
    """
    runs: list[list[Mapping[str, Any]]] = [[]]
    for each in events:
        if "mem_arena_held" in each.get("args", {}):
            runs[-1].append(each["args"])
        elif each.get("name") == "model_run":
            runs.append([])
    runs = [run for run in runs if run]
    if not runs:
        raise ValueError("the profile has no figures of an arena: this onnxruntime writes none, or there was none")
    first = runs[0][0]
    weights = int(first["mem_bytes_in_use"]) - int(first["mem_in_use_delta"])
    held = [max(int(figures["mem_arena_held"]) for figures in run) - weights for run in runs]
    used = max(int(figures["mem_bytes_in_use"]) for run in runs for figures in run) - weights
    return ArenaUse(weights, max(held), held[-1], used)
