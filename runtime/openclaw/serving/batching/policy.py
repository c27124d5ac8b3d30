"""What to do next with those who wait: run some, wait, or refuse some. Pure decisions on what the queue looks like.

The order is that of deadlines (earliest deadline first, Liu and Layland 1973), for lanes by their heads. What cannot
be in time any more is refused, so that it does not make others late as well; when the queue as a whole is behind, so
are heads whose little time left would force batches that are too small to catch up (Nexus, SOSP 2019, calls this
early drop). With a latency target, a batch that is not yet the best may be held back for the next arrival (deferred,
as in Symphony, arXiv 2308.07470), but only where the model then works less in all than if it had begun at once.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from openclaw.serving.batching.lanes import Lane, Pending
from openclaw.serving.batching.profile import PAYS_BELOW
from openclaw.serving.batching.selection import Batch, choose

Reason = Literal["queue_length", "queue_bytes", "deadline", "expired"]
"""Why a request is refused; ``deadline``: it cannot be met, ``expired``: it has passed."""

REFUSAL_SECONDS = 0.005
"""While all workers are busy, those who got too late are refused so often; to look is not free."""

BESIDE_SECONDS = 0.005
"""What a run takes at least that may begin beside others, on the same cores."""

MARGIN_SECONDS = 0.001
MARGIN_SHARE = 0.1
"""What is kept between the expected end of a batch that is held back and its deadline; a share of its latency."""


class View(NamedTuple):
    """What a decision is made on.

    Attributes:
        now: seconds.
        idle: workers that could begin a run.
        workers: in all.
        lanes: those where someone waits.
        largest: rows in a batch.
        defers: whether a batch may be held back for the next arrival: there is a latency target.
        arrivals: by family (for lanes without one by key), when the next arrival is expected.
        spare: whether one run more than there are workers may share their cores.
    """

    now: float
    idle: int
    workers: int
    lanes: Sequence[Lane]
    largest: int
    defers: bool = False
    arrivals: Mapping[Hashable, float] = MappingProxyType({})
    spare: bool = False

    @property
    def work(self) -> float:
        """Seconds until all who wait would have been answered."""
        return sum(lane.work for lane in self.lanes) / self.workers


class Dispatch(NamedTuple):
    """Run this batch now."""

    batch: Batch


class Wait(NamedTuple):
    """Nothing to do before ``until``, seconds, unless something arrives or ends; None: nothing at all."""

    until: float | None


class Front(NamedTuple):
    """The first so many requests of a lane."""

    lane: Lane
    requests: int
    reason: Reason


class Shed(NamedTuple):
    """Refuse those; trying again may help after ``retry_after`` seconds."""

    fronts: tuple[Front, ...]
    retry_after: float


Decision = Dispatch | Wait | Shed


def decide(view: View) -> Decision:
    """The next thing to do; to be asked again after it was done, until it is to wait."""
    refused = _too_late(view)
    if refused is not None:
        return refused
    if not view.lanes:
        return Wait(None)
    lanes = view.lanes if view.idle else _complete(view)
    if not lanes:
        first = min(lane.latest_start for lane in view.lanes)
        return Wait(None if first == math.inf else max(first, view.now + REFUSAL_SECONDS))
    resume = math.inf
    for lane in sorted(lanes, key=_head):
        companions = _companions(view, lane)
        waiting = lane.rows + sum(other.rows for other in companions)
        limit = _limit(view, lane, waiting=waiting)
        batch = choose(lane, companions, limit=limit, now=view.now)
        if dropped := _to_drop(view, lane, batch=batch, limit=limit):
            return Shed((Front(lane, dropped, "deadline"),), view.work)
        until = _hold_until(view, lane, batch=batch) if waiting == batch.rows else None
        # What is held back leaves the worker to others that end before it begins.
        if until is None and view.now + batch.seconds <= resume:
            return Dispatch(batch)
        resume = min(resume, math.inf if until is None else until)
    return Wait(resume)


def expected_wait(lane: Lane, rows: int, *, before: float) -> float:
    """Seconds until a request that joins the end of the queue would be answered, in batches of the best size.

    Args:
        lane: that it would join.
        rows: of the request.
        before: seconds until a worker is free, and all who wait already would have been answered.
    """
    return before + lane.profile.latency(max(rows, lane.profile.best) if lane.rows else rows)


def _too_late(view: View) -> Shed | None:
    """Those who cannot be in time, begun now or, with no worker idle, later."""
    late = [
        lane for lane in view.lanes if lane.latest_start < view.now or (lane.latest_start == view.now and not view.idle)
    ]
    if not late:
        return None
    fronts = [(lane, _late_front(view, lane)) for lane in late]
    spared = _last_hope(view, fronts)
    refused = []
    for lane, count in fronts:
        if lane is spared and lane.waiting[-1].deadline > view.now:
            count = min(count, len(lane.waiting) - 1)
        if count:
            refused.append(Front(lane, count, "expired" if lane.head.deadline <= view.now else "deadline"))
    return Shed(tuple(refused), view.work) if refused else None


def _last_hope(view: View, fronts: Sequence[tuple[Lane, int]]) -> Lane | None:
    """The lane whose last request is tried although all are late.

    The estimate may be wrong, and only runs correct it: a server that has nothing better to do tries one.
    """
    everybody = len(fronts) == len(view.lanes) and all(count == len(lane.waiting) for lane, count in fronts)
    if not everybody or view.idle < view.workers:
        return None
    return max((lane for lane, _ in fronts), key=lambda lane: lane.waiting[-1].deadline)


def _late_front(view: View, lane: Lane) -> int:
    """How many of the front of a lane are too late, all for the reason of the first."""
    count, expired = 0, lane.head.deadline <= view.now
    for request in lane.waiting:
        start = request.deadline - (0.0 if expired else lane.profile.latency(request.rows))
        if view.now < start or (view.now == start and view.idle and not expired):
            break
        count += 1
    return count


def _head(lane: Lane) -> Pending:
    return lane.head


def _complete(view: View) -> list[Lane]:
    """The lanes that a run beside others may be of: where it is long, and waiting would make its batch no better.

    A run of several threads leaves a core idle wherever one of them waits for the others, the longer the more something
    else has taken one of the cores; and the model stands still while answers are written and requests are put
    together. Another run fills that. A short one would only wait for the interpreter.
    """
    if not view.spare:
        return []
    return [
        lane
        for lane in view.lanes
        if lane.rows >= min(lane.profile.best, view.largest) and lane.profile.latency(1) >= BESIDE_SECONDS
    ]


def _companions(view: View, lane: Lane) -> list[Lane]:
    if lane.family is None:
        return []
    return [other for other in view.lanes if other is not lane and other.family == lane.family]


def _limit(view: View, lane: Lane, *, waiting: int) -> int:
    """Rows that a batch may have.

    Several idle workers share those who wait evenly. And who arrives just after a run began waits for its end and
    then for a run of its own: where both do not fit between arrival and deadline, batches as large ruin the next.
    """
    newest = lane.waiting[-1]
    sustained = lane.profile.rows_within((newest.deadline - newest.arrived) / 2)
    return max(1, min(view.largest, math.ceil(waiting / max(1, view.idle)), sustained))


def _to_drop(view: View, lane: Lane, *, batch: Batch, limit: int) -> int:
    """How many of the front of a lane to give up, so that those behind them can share a batch large enough.

    Only while more wait than a batch can take: then what counts is how many rows a second are answered, and a head
    with little time left would keep this batch, and so each one after it, small.
    """
    profile = lane.profile
    limit = min(limit, profile.best)
    if batch.until == math.inf or batch.rows >= limit or lane.rows <= limit:
        return 0
    enough = PAYS_BELOW * batch.seconds / batch.rows
    for index, request in enumerate(lane.waiting):
        rows = min(limit, profile.rows_within(request.deadline - view.now))
        if rows > batch.rows and profile.latency(rows) / rows < enough:
            return index
    return 0


def _hold_until(view: View, lane: Lane, *, batch: Batch) -> float | None:
    """Until when to hold a batch of all who wait back for the next arrival; None: waiting cannot pay."""
    profile = lane.profile
    best = min(profile.best, view.largest)
    if not view.defers or batch.until == math.inf or batch.rows >= best:
        return None
    arrival = view.arrivals.get(lane.kin, -math.inf)
    larger = profile.latency(batch.rows + 1)
    latest = batch.until - larger * (1 + MARGIN_SHARE) - MARGIN_SECONDS
    if not view.now < arrival <= latest:
        return None
    # Begun now, the next one needs a run of its own; begun later, the worker stands still until then.
    pays = arrival - view.now + larger < batch.seconds + profile.latency(1)
    return arrival if pays else None
