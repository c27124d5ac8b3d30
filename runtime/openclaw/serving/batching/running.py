"""A run of the model that has not ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openclaw.serving.batching.layout import Form, Layout
from openclaw.serving.batching.queue import Ticket


@dataclass(slots=True, eq=False)
class Running:
    """What runs, and until when it is thought to.

    Attributes:
        tickets: the requests that share it.
        layout: how they are laid together; a single one needs none.
        form: of them together.
        rows: in all.
        most: of them at once: a single request may have more than there is memory for.
        began: by the loop's clock, seconds.
        ends: when it should end, by the same clock.
        sharing: the most runs that went on for each worker meanwhile.
    """

    tickets: Sequence[Ticket]
    layout: Layout | None
    form: Form
    rows: int
    most: int
    began: float
    ends: float
    sharing: float = 1.0

    def share(self, now: float, sharing: float) -> None:
        """From now on so many runs go on for each worker: what is left takes as many times as long."""
        if sharing > self.sharing:
            self.ends += max(0.0, self.ends - now) * (sharing / self.sharing - 1)
            self.sharing = sharing
