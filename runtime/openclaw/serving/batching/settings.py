"""What a user may say about batching."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from openclaw.errors import ConfigInvalid

Padding = Literal["auto", "never"]

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class BatchingSettings:
    """Limits and aims; everything else is measured.

    Attributes:
        max_batch_size: rows in one run of the model; 1 switches batching off.
        latency_target: seconds within which an answer is worth having; a request that brings no deadline of its own
            is refused once it cannot be met. None: nothing is refused for its age and nothing is ever delayed.
        max_queue_length: requests that may wait.
        max_queue_bytes: their inputs together.
        padding: ``auto`` runs sequences of different lengths together where a mask makes that exact and it pays.
        mask: the input that is 0 where a sequence is padded, when its name is not one of the usual ones.
    """

    max_batch_size: int = 32
    latency_target: float | None = None
    max_queue_length: int = 1024
    max_queue_bytes: int = 256 * _MIB
    padding: Padding = "auto"
    mask: str | None = None

    def __post_init__(self) -> None:
        """Raises ConfigInvalid unless every value can be meant."""
        for name in ("max_batch_size", "max_queue_length", "max_queue_bytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigInvalid(f"{name} is {value!r}; a whole number of at least 1 is needed")
        target = self.latency_target
        if target is not None and not 0 < target < math.inf:
            raise ConfigInvalid(f"latency_target is {target!r}; a number of seconds above 0, or none, is needed")
        if self.padding not in get_args(Padding):
            raise ConfigInvalid(f"padding is {self.padding!r}; one of {', '.join(get_args(Padding))} is needed")
