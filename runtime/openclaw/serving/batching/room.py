"""Whether there is memory to run a larger batch, told by what smaller ones took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_ARENA = 2
"""Times what tensors need that onnxruntime's arena may ask for: it doubles as it grows."""
_SHARE = 0.5
"""Of the memory that is left: the rest is for other runs, and for requests."""


def _unknown() -> None:
    return None


@dataclass(slots=True)
class Room:
    """What a run may take, by the one that took the most for its size.

    Attributes:
        left: tells the bytes of memory that are left; None: unknown, and enough.
        grown: bytes that memory grew by for a run, or may have.
        elements: rows, of sequences times their length, of that run.
    """

    left: Callable[[], int | None] = _unknown
    grown: int = 0
    elements: int = 1

    def most(self) -> int | None:
        """Elements of a run that needs no more than its share of what is left; None: any number."""
        left = self.left()
        if left is None or not self.grown:
            return None
        return int(left * _SHARE * self.elements / (self.grown * _ARENA))

    def fits(self, elements: int) -> bool:
        """Whether a run of so many elements needs no more than its share of what is left."""
        most = self.most()
        return most is None or elements <= most

    def took(self, elements: int, *, before: int | None) -> None:
        """A run of so many ended.

        Args:
            elements: of the run.
            before: what ``left`` told when it began.
        """
        now = self.left()
        # Where the arena had the memory already, what is known of other runs holds.
        if before is not None and now is not None and (before - now) * self.elements >= self.grown * elements:
            self.grown, self.elements = before - now, elements
