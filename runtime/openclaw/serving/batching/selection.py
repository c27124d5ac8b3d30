"""Which waiting requests to run together: those that make a row cheapest and still meet the first deadline. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import merge
from itertools import islice
from typing import NamedTuple

from openclaw.serving.batching.lanes import Lane, Pending
from openclaw.serving.batching.profile import PAYS_BELOW

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
    saved = _alone(lane, best.rows) - best.seconds
    for length in _lengths(lane, companions):
        padded, gain = _padded(lane, companions, length=length, limit=limit, now=now)
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


def _lengths(lane: Lane, companions: Sequence[Lane]) -> list[int]:
    """The lengths to which a batch with the head of ``lane`` may be filled up."""
    if not companions:
        return []
    most = lane.length * MOST_PADDED
    lengths = sorted({lane.length, *(other.length for other in companions if lane.length < other.length <= most)})
    step = max(1, len(lengths) // _LENGTHS_TRIED)
    return lengths[::step]


def _padded(lane: Lane, companions: Sequence[Lane], *, length: int, limit: int, now: float) -> tuple[Batch, float]:
    """The batch of sequences up to ``length``, and the seconds that it saves."""
    lanes = [lane, *(other for other in companions if length / MOST_PADDED <= other.length <= length)]
    profile = next(other for other in lanes if other.length == length).profile
    rows, until = lane.head.rows, lane.head.deadline
    seconds, counts = profile.latency(rows), {id(lane): 1}
    alone = _alone(lane, rows)
    closed: set[int] = set()
    for request, other in _in_order(lanes, first=lane, most=limit):
        more = profile.latency(rows + request.rows)
        worth = _alone(other, request.rows)
        if id(other) in closed:
            continue
        # Whoever is passed over keeps those behind it in its lane out, too: nobody overtakes in a lane.
        if rows + request.rows > limit or now + more > min(until, request.deadline) or more - seconds > worth:
            closed.add(id(other))
            continue
        rows, seconds, until, alone = rows + request.rows, more, min(until, request.deadline), alone + worth
        counts[id(other)] = counts.get(id(other), 0) + 1
    takes = tuple((other, counts[id(other)]) for other in lanes if id(other) in counts)
    longest = max(other.length for other, _ in takes)
    return Batch(takes, rows, seconds, until, longest), alone - seconds


def _in_order(lanes: Sequence[Lane], *, first: Lane, most: int) -> list[tuple[Pending, Lane]]:
    """Who may join the head of ``first``, in the order of their deadlines; no more than can fit."""
    queues = [
        [(request, index) for request in islice(other.waiting, int(other is first), most)]
        for index, other in enumerate(lanes)
    ]
    return [(request, lanes[index]) for request, index in islice(merge(*queues), 2 * most)]


def _alone(lane: Lane, rows: int) -> float:
    """What so many rows cost without other lengths beside them, in batches as large as those who wait in the lane."""
    size = min(max(lane.rows, rows), lane.profile.largest)
    cheapest = min(lane.profile.latency(size) / size, lane.profile.latency(1))
    return cheapest * rows
