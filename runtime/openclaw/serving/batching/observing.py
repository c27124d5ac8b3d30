"""Who is told what a batcher does: what it counts is not its own concern."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Is told what happened, on the event loop's thread."""

    def queued(self, seconds: float, /) -> None:
        """A request waited so long before its run began."""

    def ran(self, rows: int, seconds: float, /) -> None:
        """The model ran once over so many rows."""

    def shed(self, reason: str, /) -> None:
        """A request was refused; one of ``policy.Reason``."""


class Silent:
    """Tells nobody."""

    def queued(self, seconds: float, /) -> None:
        """Nothing."""

    def ran(self, rows: int, seconds: float, /) -> None:
        """Nothing."""

    def shed(self, reason: str, /) -> None:
        """Nothing."""
