"""One run of the model for one or more requests: blocking, on an executor's thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from openclaw.execute.microbatches import MicroBatches
from openclaw.execute.session import Array
from openclaw.serving.batching.assembly import Buffers, gather, split
from openclaw.serving.batching.layout import Layout
from openclaw.serving.batching.probing import Run
from openclaw.serving.batching.queue import Ticket
from openclaw.serving.batching.running import Running

Answer = list[Array] | Exception
Clock = Callable[[], float]


class Outcome(NamedTuple):
    """The answers by request; ``seconds`` in the model, None unless it ran as a whole."""

    answers: Sequence[Answer]
    seconds: float | None


def execute(run: Run, running: Running, *, buffers: Buffers, clock: Clock = time.perf_counter) -> Outcome:
    """Runs requests together; if that fails, one by one, so that a bad one fails alone.

    Args:
        run: the model.
        running: requests for the same outputs. Where they have a layout, no more rows are run at once than it says.
        buffers: where to lay them.
        clock: that the run is timed with, seconds.
    """
    tickets, layout, length = running.tickets, running.layout, running.form.length
    outputs = tickets[0].outputs
    if layout is not None:
        run = MicroBatches(run, running.most, buffers.array).run
    try:
        if len(tickets) == 1:
            start = clock()
            results = run(outputs, tickets[0].arrays)
            return Outcome([results], clock() - start)
        assert layout is not None, "requests without a layout share no run"
        arrays = gather([ticket.arrays for ticket in tickets], layout, length=length, buffers=buffers)
        start = clock()
        results = run(outputs, arrays)
        seconds = clock() - start
        return Outcome(_shares(results, tickets, layout, length=length), seconds)
    except Exception as error:
        # Whatever it is, it is the answer of the request that it belongs to; whose it is, only running alone shows.
        return Outcome([error], None) if len(tickets) == 1 else Outcome([_alone(run, one) for one in tickets], None)


def _alone(run: Run, ticket: Ticket) -> Answer:
    try:
        return run(ticket.outputs, ticket.arrays)
    except Exception as error:
        return error


def _shares(results: list[Array], tickets: Sequence[Ticket], layout: Layout, *, length: int) -> list[list[Array]]:
    rows = [ticket.form.rows for ticket in tickets]
    lengths = [ticket.form.length for ticket in tickets]
    if layout.sequences is None or all(own == length for own in lengths):
        return split(results, rows)
    cuts = [layout.sequences.cuts[name] for name in tickets[0].outputs]
    return split(results, rows, lengths=lengths, cuts=cuts)
