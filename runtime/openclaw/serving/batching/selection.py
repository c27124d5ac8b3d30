"""Which waiting requests to run together: those that make a row cheapest and still meet the first deadline. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from openclaw.serving.batching.lanes import Lane, Pending
from openclaw.serving.batching.profile import PAYS_BELOW, Profile

MOST_PADDED = 2.0
"""How much longer than a sequence it may become; where more would pay, shorter ones are better off among themselves."""
_LENGTHS_TRIED = 6


class Batch(NamedTuple):
    """Requests to run together.

    Attributes:
        takes: how many from the front of each lane.
        rows: in all.
        seconds: that the run takes.
        until: the first of their deadlines.
        length: to which sequences are filled up; 0 or their own: they are not.
    """

    takes: tuple[tuple[Lane, int], ...]
    rows: int
    seconds: float
    until: float
    length: int


def choose(lane: Lane, companions: Sequence[Lane], *, limit: int, now: float) -> Batch:
    """The batch to run for the head of ``lane``.

    Args:
        lane: whose head is in the batch in any case.
        companions: other lanes of its family, not empty.
        limit: rows in a batch; the head may have more, and is then alone.
        now: seconds.
    """
    best = of_lane(lane, limit=limit, now=now)
    if not lane.profile.pays:
        return best
    near = [other for other in companions if lane.length / MOST_PADDED <= other.length <= lane.length * MOST_PADDED]
    if not near or limit <= lane.head.rows:
        return best
    saved = _alone(lane, best.rows) * best.rows - best.seconds
    queue = _in_order([lane, *near], most=2 * limit)[1:]
    costs = {other.length: _alone(other, 1) for other in (lane, *near)}
    for length, profile in _targets(lane, near):
        padded, gain = _padded(lane, queue, costs, fill=Fill(length, profile, limit, now))
        if gain > saved + (1 - PAYS_BELOW) * padded.seconds:
            best, saved = padded, gain
    return best


def of_lane(lane: Lane, *, limit: int, now: float) -> Batch:
    """The front of one lane that makes a row cheapest, and is in time."""
    profile = lane.profile
    limit = min(limit, profile.largest)
    count, rows, until = 1, lane.head.rows, lane.head.deadline
    best = Batch(((lane, 1),), rows, profile.latency(rows), until, lane.length)
    cheapest = best.seconds / rows * PAYS_BELOW
    for request in islice(lane.waiting, 1, None):
        count, rows, until = count + 1, rows + request.rows, min(until, request.deadline)
        seconds = profile.latency(rows)
        if rows > limit or now + seconds > until:
            break
        if seconds / rows < cheapest:
            best = Batch(((lane, count),), rows, seconds, until, lane.length)
            cheapest = seconds / rows
    return best


def _in_order(lanes: Sequence[Lane], *, most: int) -> list[tuple[Pending, Lane]]:
    """Who waits in these lanes, in the order of their deadlines; no more than ``most``."""
    waiting = [(request, lane) for lane in lanes for request in lane.waiting[:most]]
    waiting.sort(key=_request)
    return waiting[:most]


def _request(item: tuple[Pending, Lane]) -> Pending:
    return item[0]


class Fill(NamedTuple):
    """To which length sequences are filled up, and what limits the batch."""

    length: int
    profile: Profile
    limit: int
    now: float


def _targets(lane: Lane, near: Sequence[Lane]) -> list[tuple[int, Profile]]:
    """The lengths, with their profiles, to which a batch with the head of ``lane`` may be filled up."""
    lanes = sorted([lane, *(other for other in near if other.length > lane.length)], key=lambda other: other.length)
    step = -(-len(lanes) // _LENGTHS_TRIED)
    return [(other.length, other.profile) for other in lanes[::step]]


def _padded(
    lane: Lane, queue: Sequence[tuple[Pending, Lane]], costs: Mapping[int, float], *, fill: Fill
) -> tuple[Batch, float]:
    """The batch that ``lane``'s head makes with those of ``queue``, and the seconds that it saves."""
    length, profile, limit, now = fill
    shortest = length / MOST_PADDED
    rows, until = lane.head.rows, lane.head.deadline
    seconds, alone = profile.latency(rows), costs[lane.length] * rows
    counts: dict[int, tuple[Lane, int]] = {lane.length: (lane, 1)}
    closed: set[int] = set()
    for request, other in queue:
        own = other.length
        if own in closed or not shortest <= own <= length:
            continue
        more, worth = profile.latency(rows + request.rows), costs[own] * request.rows
        # Whoever is passed over keeps those behind it in its lane out, too: nobody overtakes in a lane.
        if rows + request.rows > limit or now + more > min(until, request.deadline) or more - seconds > worth:
            closed.add(own)
            continue
        rows, seconds, until, alone = rows + request.rows, more, min(until, request.deadline), alone + worth
        counts[own] = other, counts.get(own, (other, 0))[1] + 1
        if rows == limit:
            break
    return Batch(tuple(counts.values()), rows, seconds, until, max(counts)), alone - seconds


def _alone(lane: Lane, rows: int) -> float:
    """What a row costs without other lengths beside it, in batches as large as those who wait in the lane."""
    size = min(max(lane.rows, rows), lane.profile.largest)
    return min(lane.profile.latency(size) / size, lane.profile.latency(1))
