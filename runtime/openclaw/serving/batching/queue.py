"""The requests that wait for a model, bounded in number and bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping

from openclaw.execute.session import Array
from openclaw.serving.batching.lanes import FAR, Lane, Pending
from openclaw.serving.batching.layout import Form
from openclaw.serving.batching.policy import Reason, View
from openclaw.serving.batching.profile import Profile
from openclaw.serving.batching.settings import BatchingSettings

PATIENCE = 1.0
"""Seconds after which a request that names no deadline is due, where there is no latency target: it only orders."""

_ARRIVAL_GAIN = 0.2
_MAX_FAMILIES = 256
_NEVER = float("inf")


class Ticket:
    """A request in the queue, and the future that it is answered with; ``limited``: it brought a deadline."""

    __slots__ = ("arrays", "form", "future", "key", "limited", "nbytes", "outputs", "pending", "since")

    def __init__(
        self, arrays: Mapping[str, Array], outputs: tuple[str, ...], *, form: Form, nbytes: int, limited: bool = False
    ) -> None:
        self.arrays = arrays
        self.limited = limited
        self.outputs = outputs
        self.form = form
        self.nbytes = nbytes
        self.key: Hashable = (outputs, form.shape, form.length)
        self.pending: Pending
        self.future: asyncio.Future[list[Array]]
        self.since = 0.0


class RequestQueue:
    """Lanes of waiting requests; used from one thread.

    Attributes:
        nbytes: of all inputs that wait.
        lanes: by key, those where someone waits.
        work: seconds that one worker needs for all who wait.
        last_deadline: the latest of those who came since the queue was last empty; minus infinity where nobody waits.
    """

    def __init__(self, settings: BatchingSettings) -> None:
        self.lanes: dict[Hashable, Lane] = {}
        self.nbytes = 0
        self.work = 0.0
        self.last_deadline = -_NEVER
        self._settings = settings
        self._tickets: dict[int, Ticket] = {}
        self._number = 0
        self._arrivals: dict[Hashable, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def full(self, nbytes: int) -> Reason | None:
        """Why a request of so many bytes cannot wait; an empty queue takes any."""
        if len(self._tickets) >= self._settings.max_queue_length:
            return "queue_length"
        if self._tickets and self.nbytes + nbytes > self._settings.max_queue_bytes:
            return "queue_bytes"
        return None

    def lane(self, ticket: Ticket, profile_of: Callable[[Form], Profile]) -> Lane:
        """The lane that a request would wait in; one that is made for it is queued with it."""
        lane = self.lanes.get(ticket.key)
        if lane is None:
            form = ticket.form
            family = ticket.outputs if form.length else None
            lane = Lane(ticket.key, profile_of(form), family, form.length)
        return lane

    def add(self, ticket: Ticket, lane: Lane, *, now: float, deadline: float) -> None:
        """Queues a request; ``deadline``: loop time, infinite without one."""
        due = min(deadline, now + (PATIENCE if deadline == float("inf") else FAR))
        self._number += 1
        ticket.pending = Pending(due, self._number, ticket.form.rows, now, deadline)
        self.lanes[lane.key] = lane
        self.work -= lane.work
        lane.add(ticket.pending)
        self.work += lane.work
        self.last_deadline = max(self.last_deadline, deadline)
        self._tickets[self._number] = ticket
        self.nbytes += ticket.nbytes
        if self._settings.latency_target is not None:
            self._note_arrival(lane.kin, now)

    def take(self, lane: Lane, count: int) -> list[Ticket]:
        """The first requests of a lane, which wait no longer."""
        self.work -= lane.work
        taken = [self._tickets.pop(pending.number) for pending in lane.take(count)]
        self.nbytes -= sum(ticket.nbytes for ticket in taken)
        self._left(lane)
        return taken

    def withdraw(self, ticket: Ticket) -> bool:
        """Takes out one request; False: it does not wait any more."""
        if self._tickets.pop(ticket.pending.number, None) is None:
            return False
        lane = self.lanes[ticket.key]
        self.work -= lane.work
        lane.withdraw(ticket.pending)
        self.nbytes -= ticket.nbytes
        self._left(lane)
        return True

    def refresh(self, profile_of: Callable[[Form], Profile]) -> None:
        """Gives the lanes the profiles as they are now."""
        for lane in self.lanes.values():
            ticket = self._tickets[lane.head.number]
            lane.learn(profile_of(ticket.form))
        self.work = sum(lane.work for lane in self.lanes.values())

    def view(self, *, now: float, idle: int, workers: int, largest: int, spare: bool = False) -> View:
        """What a decision is made on; ``largest``: rows in a batch; ``spare``: whether a run more may share cores."""
        defers = self._settings.latency_target is not None
        arrivals = {family: last + interval for family, (last, interval) in self._arrivals.items()} if defers else {}
        return View(now, idle, workers, list(self.lanes.values()), largest, defers, arrivals, spare)

    def _left(self, lane: Lane) -> None:
        self.work += lane.work
        if not lane.waiting:
            del self.lanes[lane.key]
        if not self.lanes:
            self.work, self.last_deadline = 0.0, -_NEVER

    def _note_arrival(self, family: Hashable, now: float) -> None:
        last, interval = self._arrivals.get(family, (now, float("inf")))
        gap = now - last
        if interval == float("inf"):
            interval = gap if gap else interval
        else:
            interval += _ARRIVAL_GAIN * (gap - interval)
        if family not in self._arrivals and len(self._arrivals) >= _MAX_FAMILIES:
            self._arrivals.clear()
        self._arrivals[family] = now, interval
