"""A server with a known latency, in simulated time: what a policy is worth, without a clock or a model."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from openclaw.serving.batching.lanes import FAR, Lane, Pending
from openclaw.serving.batching.policy import Dispatch, Shed, View, Wait, decide
from openclaw.serving.batching.profile import Point, Profile, batch_sizes
from openclaw.serving.batching.queue import PATIENCE

Latency = Callable[[int, int], float]
"""Seconds of a run, by rows and length."""

NEVER = float("inf")


@dataclass(frozen=True)
class Arrival:
    """A request of the load; ``deadline`` in seconds after it."""

    at: float
    rows: int = 1
    length: int = 0
    deadline: float = NEVER


@dataclass
class Server:
    """Does what :func:`decide` says, with runs that take exactly what the profiles say."""

    latency: Latency
    largest: int = 32
    workers: int = 1
    defers: bool = False
    interval: float | None = None
    now: float = 0.0
    lanes: dict[int, Lane] = field(default_factory=dict)
    running: list[tuple[float, int]] = field(default_factory=list)
    began: dict[int, float] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)
    shed: dict[int, str] = field(default_factory=dict)
    batches: list[tuple[float, int, list[int]]] = field(default_factory=list)
    on_decision: Callable[[View, object], None] = lambda view, decision: None

    def serve(self, arrivals: Sequence[Arrival]) -> Server:
        """Runs until every request was answered or refused."""
        pending = sorted(enumerate(arrivals), key=lambda item: item[1].at)
        wake = NEVER
        while pending or self.running or self.lanes:
            times = [pending[0][1].at if pending else NEVER, self.running[0][0] if self.running else NEVER, wake]
            assert min(times) < NEVER, "somebody waits and nothing will ever happen"
            self.now = max(self.now, min(times))
            while self.running and self.running[0][0] <= self.now:
                heapq.heappop(self.running)
            while pending and pending[0][1].at <= self.now:
                number, arrival = pending.pop(0)
                self._queue(number, arrival)
            wake = self._decide()
        return self

    def in_time(self, arrivals: Sequence[Arrival]) -> int:
        """How many were answered before their deadline."""
        return sum(
            self.ended.get(number, NEVER) <= arrival.at + arrival.deadline for number, arrival in enumerate(arrivals)
        )

    def view(self) -> View:
        arrivals = {} if self.interval is None else dict.fromkeys(self.lanes, self.now + self.interval)
        idle = self.workers - len(self.running)
        return View(self.now, idle, self.workers, list(self.lanes.values()), self.largest, self.defers, arrivals)

    def _queue(self, number: int, arrival: Arrival) -> None:
        lane = self.lanes.get(arrival.length)
        if lane is None:
            points = [Point(rows, self.latency(rows, arrival.length), 5) for rows in batch_sizes(self.largest)]
            family = "sequences" if arrival.length else None
            lane = self.lanes[arrival.length] = Lane(arrival.length, Profile(tuple(points)), family, arrival.length)
        deadline = arrival.at + arrival.deadline
        due = min(deadline, arrival.at + (PATIENCE if deadline == NEVER else FAR))
        lane.add(Pending(due, number, arrival.rows, arrival.at, deadline))

    def _decide(self) -> float:
        for _ in count():
            view = self.view()
            decision = decide(view)
            self.on_decision(view, decision)
            if isinstance(decision, Wait):
                assert decision.until is None or decision.until > self.now
                return NEVER if decision.until is None else decision.until
            if isinstance(decision, Shed):
                for front in decision.fronts:
                    for request in self._take(front.lane, front.requests):
                        self.shed[request.number] = front.reason
            else:
                self._run(decision)
        raise AssertionError

    def _run(self, decision: Dispatch) -> None:
        assert len(self.running) < self.workers
        batch = decision.batch
        taken = [request for lane, requests in batch.takes for request in self._take(lane, requests)]
        seconds = self.latency(batch.rows, batch.length)
        heapq.heappush(self.running, (self.now + seconds, taken[0].number))
        self.batches.append((self.now, batch.length, [request.number for request in taken]))
        for request in taken:
            self.began[request.number] = self.now
            self.ended[request.number] = self.now + seconds

    def _take(self, lane: Lane, requests: int) -> list[Pending]:
        taken = lane.take(requests)
        if not lane.waiting:
            del self.lanes[lane.key]
        return taken


def poisson(
    rate: float, seconds: float, *, seed: int, lengths: Sequence[int] = (0,), deadline: float = NEVER
) -> list[Arrival]:
    """Arrivals at random, ``rate`` a second on average."""
    return list(_poisson(rate, seconds, seed=seed, lengths=lengths, deadline=deadline))


def _poisson(rate: float, seconds: float, *, seed: int, lengths: Sequence[int], deadline: float) -> Iterator[Arrival]:
    import random

    source = random.Random(seed)
    at = source.expovariate(rate)
    while at < seconds:
        yield Arrival(at, 1, source.choice(lengths), deadline)
        at += source.expovariate(rate)
