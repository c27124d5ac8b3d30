"""How much of the memory that a process is granted its models and requests may take. Pure."""

from __future__ import annotations

RESERVE = 160 << 20
"""Bytes for what is counted nowhere: the interpreter, onnxruntime, activations of small models, connections."""
_LARGEST_RESERVE = 2
_LARGEST_BUFFERS = 8
_BUFFERS = 64 << 20


def budget_of(setting: int | None, granted: int | None) -> int | None:
    """Bytes for models and the buffers of requests.

    Args:
        setting: what was asked for; None: whatever there is.
        granted: to the process; None: no limit.
    """
    if granted is None:
        return setting
    left = granted - min(RESERVE, granted // _LARGEST_RESERVE)
    return left if setting is None else min(setting, left)


def for_weights(budget: int, taken: int = 0) -> int:
    """The part of a budget that weights may take: without buffers nobody could ask.

    Args:
        budget: bytes in all.
        taken: bytes that are taken already by what is no weights; some are kept for that, taken or not.
    """
    return budget - max(taken, min(_BUFFERS, budget // _LARGEST_BUFFERS))
