"""What waits: requests, in lanes of one form each, in the order of their deadlines."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from openclaw.serving.batching.profile import Profile

FAR = 60.0
"""Seconds after its arrival at which a request is due at the latest, so that a far deadline starves nobody."""


class Pending(NamedTuple):
    """A request that waits; ordered by when it is due, then by arrival.

    Attributes:
        due: what it is ordered by, seconds.
        number: counts arrivals.
        rows: of its inputs.
        arrived: seconds.
        deadline: seconds, after which its answer is worth nothing; infinite without one.
    """

    due: float
    number: int
    rows: int = 1
    arrived: float = 0.0
    deadline: float = float("inf")


@dataclass(slots=True, eq=False)
class Lane:
    """The requests of one form.

    Attributes:
        key: of the form.
        family: lanes of one family may share a run, filled up to the longest; None: this one shares with no other.
        length: of its sequences; 0: none.
        profile: how long batches of this form take.
        waiting: in order.
        rows: of all that wait.
        latest_start: when a run of its head has to begin to be in time; infinite without a deadline.
    """

    key: Hashable
    profile: Profile
    family: Hashable | None = None
    length: int = 0
    waiting: list[Pending] = field(default_factory=list)
    rows: int = 0
    latest_start: float = float("inf")

    @property
    def head(self) -> Pending:
        """Who is due first."""
        return self.waiting[0]

    @property
    def kin(self) -> Hashable:
        """Whose arrivals may join a batch of this lane."""
        return self.key if self.family is None else self.family

    @property
    def work(self) -> float:
        """Seconds that all who wait here take in the best batches."""
        return self.rows * self.profile.row_seconds

    def add(self, request: Pending) -> None:
        """Queues a request at its place."""
        waiting = self.waiting
        if not waiting or waiting[-1] < request:
            waiting.append(request)
        else:
            insort(waiting, request)
        self.rows += request.rows
        if waiting[0] is request:
            self._note_head()

    def take(self, count: int) -> list[Pending]:
        """The first ``count`` requests, which wait no longer."""
        taken = self.waiting[:count]
        del self.waiting[:count]
        self.rows -= sum(request.rows for request in taken)
        self._note_head()
        return taken

    def withdraw(self, request: Pending) -> bool:
        """Takes out one request; False: it does not wait here."""
        at = bisect_left(self.waiting, request)
        if at == len(self.waiting) or self.waiting[at].number != request.number:
            return False
        del self.waiting[at]
        self.rows -= request.rows
        self._note_head()
        return True

    def learn(self, profile: Profile) -> None:
        """Takes what is known of the latency by now."""
        if profile is not self.profile:
            self.profile = profile
            self._note_head()

    def _note_head(self) -> None:
        # Kept, as it is asked for of every lane at every decision.
        if self.waiting:
            head = self.waiting[0]
            self.latest_start = head.deadline - self.profile.latency(head.rows)
