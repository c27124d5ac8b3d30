"""The asyncio edge of batching: requests in, answers out, runs on an executor's threads.

All state is the event loop's; a thread sees only the batch that it runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from openclaw.errors import DeadlineExceeded, NotReady, Overloaded, RequestError
from openclaw.execute.session import Array
from openclaw.serving.batching.assembly import Buffers
from openclaw.serving.batching.hop import HOP_SECONDS, Inline
from openclaw.serving.batching.latencies import Latencies
from openclaw.serving.batching.layout import ALONE, Form
from openclaw.serving.batching.measuring import ModelProfile
from openclaw.serving.batching.observing import Observer, Silent
from openclaw.serving.batching.overrun import Overrun
from openclaw.serving.batching.policy import REFUSAL_SECONDS, Dispatch, Reason, Shed, View, decide, expected_wait
from openclaw.serving.batching.probing import Run
from openclaw.serving.batching.profile import Profile
from openclaw.serving.batching.queue import RequestQueue, Ticket
from openclaw.serving.batching.running import Running
from openclaw.serving.batching.runs import Clock, Outcome, execute
from openclaw.serving.batching.selection import Batch
from openclaw.serving.batching.settings import BatchingSettings

T = TypeVar("T")

LEAST_RETRY_SECONDS = 0.05
LEAST_RUNS_IN_TARGET = 2
"""A latency target below so many runs of the model is taken as that: it would refuse everything."""

_NEVER = float("inf")


class Batcher:
    """Runs a model for requests that arrive one by one; used from one event loop.

    Args:
        run: the model; blocking, and safe on several threads at once.
        profile: what was measured of it.
        settings: limits and aims.
        executor: whose threads run it; others may use it, too.
        observer: is told of queueing, runs and refusals.
        concurrency: runs at the same time.
        spare: runs that may share the cores of these; none where there is a latency target, which they would miss.
        hop: seconds that it costs to have something run on the executor; what takes less runs at once.
        buffers: where batches lie.
        clock: that runs and waits are timed with, seconds; deadlines are the loop's.
    """

    def __init__(
        self,
        run: Run,
        *,
        profile: ModelProfile,
        settings: BatchingSettings,
        executor: Executor,
        observer: Observer | None = None,
        concurrency: int = 1,
        spare: int = 0,
        hop: float = HOP_SECONDS,
        buffers: Buffers | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._run = run
        self._settings = settings
        self._executor = executor
        self._observer: Observer = observer or Silent()
        self._ran = self._observer.ran
        self._workers = concurrency
        self._to_spare = spare if settings.latency_target is None else 0
        self._clock = clock
        self._queue = RequestQueue(settings)
        self.adopt(profile)
        self._running: set[Running] = set()
        self._buffers = buffers or Buffers()
        self._inline = Inline(hop, clock)
        self._overrun = Overrun()
        self._decision: asyncio.Handle | None = None
        self._decision_at = _NEVER
        self._emptied: asyncio.Event | None = None
        self._closed = False

    def adopt(self, profile: ModelProfile) -> None:
        """Goes by what was measured anew; those who wait already keep the form that they came in."""
        self._layout = profile.layout
        self._room = profile.room
        largest = self._settings.max_batch_size if profile.layout is not None else 1
        self._largest = min(largest, profile.most or largest)
        # Where there may be no memory for larger batches, there may be none for a run beside another either.
        self._spare = self._to_spare if profile.most is None else 0
        self._latencies = Latencies(profile.profiles, largest=self._largest)
        self._queue.refresh(self._latencies.profile)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def waiting_bytes(self) -> int:
        """Of their inputs."""
        return self._queue.nbytes

    @property
    def running(self) -> int:
        """Requests that the model is working on."""
        return sum(len(run.tickets) for run in self._running)

    def oldest_running(self) -> float:
        """Seconds since the oldest run began that has not ended; 0.0: nothing runs."""
        if not self._running:
            return 0.0
        return asyncio.get_running_loop().time() - min(run.began for run in self._running)

    def profile(self, arrays: Mapping[str, Array]) -> Profile:
        """What is known by now about the latency of requests like this one."""
        return self._latencies.profile(self._form(arrays))

    def submit(
        self, arrays: Mapping[str, Array], outputs: tuple[str, ...], *, deadline: float | None = None
    ) -> list[Array] | asyncio.Future[list[Array]]:
        """Answers a request: at once where the model is quicker than a thread would be, else later.

        The inputs may not change until the answer is there; cancelling the future withdraws the request.

        Args:
            arrays: inputs that fit the model's signature.
            outputs: the names of those wanted.
            deadline: on the loop's clock, after which the answer is worth nothing.

        Returns:
            The outputs in the order asked for, or a future of them.

        Raises:
            Overloaded: the queue is full, or too long for the deadline; the future may raise it as well.
            DeadlineExceeded: the deadline has passed; the future may raise it as well.
            NotReady: the batcher is closed.
            RequestError: the model failed, if it ran at once; otherwise the future raises it.
        """
        nbytes = 0
        for array in arrays.values():
            nbytes += array.nbytes
        if deadline is None and self.is_quick(nbytes):
            return self._run_inline(arrays, outputs)
        return self._enter(arrays, outputs, nbytes=nbytes, deadline=deadline)

    def is_quick(self, nbytes: int) -> bool:
        """Whether ``submit`` would answer so many bytes at once."""
        return nbytes <= self._inline.nbytes and not self._closed

    def joins(self, arrays: Mapping[str, Array]) -> int:
        """How many requests like this one may share a run; 1: none but itself."""
        form = self._form(arrays)
        return 1 if form.shape is None else max(1, self._largest // form.rows)

    @property
    def hop(self) -> float:
        """Seconds that a run on the event loop may take."""
        return self._inline.hop

    def run_at_once(self, run: Callable[[], None], *, rows: int, requests: int, nbytes: int) -> bool:
        """Runs the model by ``run`` where ``submit`` would answer at once; whether it did. Raises what ``run`` does.

        Args:
            run: does it.
            rows: of all requests together.
            requests: that share the run.
            nbytes: of each.
        """
        if not self.is_quick(nbytes):
            return False
        self._timed(run, rows, requests)
        return True

    def close(self) -> None:
        """Refuses those who wait and all who come; what runs is still answered."""
        self._closed = True
        if self._decision is not None:
            self._decision.cancel()
            self._decision = None
        for lane in list(self._queue.lanes.values()):
            for ticket in self._queue.take(lane, len(lane.waiting)):
                _refuse(ticket, NotReady("the model is being unloaded"))
        self._check_emptied()

    async def drained(self) -> None:
        """Waits until nothing waits and nothing runs."""
        while self._queue or self._running:
            if self._emptied is None:
                self._emptied = asyncio.Event()
            await self._emptied.wait()

    def _form(self, arrays: Mapping[str, Array]) -> Form:
        return ALONE if self._layout is None else self._layout.form(arrays)

    def _run_inline(self, arrays: Mapping[str, Array], outputs: tuple[str, ...]) -> list[Array]:
        return self._timed(partial(self._run, outputs, arrays), _rows(arrays))

    def _timed(self, run: Callable[[], T], rows: int, requests: int = 1) -> T:
        """Runs the model on the event loop."""
        start = self._clock()
        result = run()
        seconds = self._clock() - start
        inline = self._inline
        if inline.slow or seconds > inline.hop:
            inline.ran(seconds, rows=rows, requests=requests)
        self._ran(rows, seconds)
        return result

    def _enter(
        self, arrays: Mapping[str, Array], outputs: tuple[str, ...], *, nbytes: int, deadline: float | None
    ) -> list[Array] | asyncio.Future[list[Array]]:
        if self._closed:
            raise NotReady("the model is being unloaded")
        loop = asyncio.get_running_loop()
        now = loop.time()
        if deadline is not None and deadline <= now:
            raise self._refusal("expired", 0.0)
        ticket = Ticket(arrays, outputs, form=self._form(arrays), nbytes=nbytes, limited=deadline is not None)
        lane = self._queue.lane(ticket, self._latencies.profile)
        rows = ticket.form.rows
        # Also while others wait: it delays them by less than their hop to a thread takes.
        if self._inline.admits(lane.profile, rows, nbytes=nbytes):
            return self._run_inline(arrays, outputs)
        if full := self._queue.full(nbytes):
            raise self._refusal(full, self._before(now))
        alone = lane.profile.latency(rows)
        until = self._deadline(deadline, now, alone=alone)
        if until < _NEVER and (self._queue or self._running):
            over = now + expected_wait(lane, rows, before=self._before(now)) - until
            if over > 0 and until >= self._queue.last_deadline:
                raise self._refusal("deadline", over)
        ticket.future = loop.create_future()
        ticket.since = self._clock()
        self._queue.add(ticket, lane, now=now, deadline=until)
        ticket.future.add_done_callback(partial(self._ended, ticket))
        if len(self._running) < self._workers + self._spare:
            self._decide_soon(loop)
        elif until - alone < self._decision_at:
            self._decide_at(max(until - alone, now + REFUSAL_SECONDS), loop)
        return ticket.future

    def _deadline(self, deadline: float | None, now: float, *, alone: float) -> float:
        target = self._settings.latency_target
        if deadline is None:
            if target is None:
                return _NEVER
            deadline = now + max(target, LEAST_RUNS_IN_TARGET * alone)
        return self._overrun.ahead_of(deadline, now)

    def _before(self, now: float) -> float:
        """Seconds until a worker is free and all who wait would have been answered."""
        free = 0.0
        if len(self._running) >= self._workers:
            free = max(0.0, min(run.ends for run in self._running) - now)
        return free + self._queue.work / self._workers

    def _view(self, now: float) -> View:
        running, workers = len(self._running), self._workers
        return self._queue.view(
            now=now,
            idle=max(0, workers - running),
            workers=workers,
            largest=self._largest,
            spare=running < workers + self._spare,
        )

    def _decide_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """At the end of this turn of the loop: what arrives in it may share a run, and nobody waits longer."""
        if self._decision is None or self._decision_at > 0:
            self._cancel_decision()
            self._decision = loop.call_soon(self._decide)
            self._decision_at = 0.0

    def _decide_at(self, when: float, loop: asyncio.AbstractEventLoop) -> None:
        self._cancel_decision()
        self._decision = loop.call_at(when, self._decide)
        self._decision_at = when

    def _cancel_decision(self) -> None:
        if self._decision is not None:
            self._decision.cancel()
        self._decision, self._decision_at = None, _NEVER

    def _decide(self) -> None:
        self._cancel_decision()
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            decision = decide(self._view(now))
            if isinstance(decision, Dispatch):
                self._begin(decision.batch, now)
            elif isinstance(decision, Shed):
                self._shed(decision)
            else:
                if decision.until is not None:
                    self._decide_at(decision.until, loop)
                break
        self._check_emptied()

    def _shed(self, decision: Shed) -> None:
        for front in decision.fronts:
            for ticket in self._queue.take(front.lane, front.requests):
                # What only the server's own target makes late may well be asked for again.
                reason = front.reason if ticket.limited else "deadline"
                _refuse(ticket, self._refusal(reason, decision.retry_after))

    def _begin(self, batch: Batch, now: float) -> None:
        tickets = [ticket for lane, count in batch.takes for ticket in self._queue.take(lane, count)]
        began = self._clock()
        for ticket in tickets:
            self._observer.queued(began - ticket.since)
        form = tickets[0].form._replace(length=batch.length)
        most = self._at_once(form, batch.rows)
        run = Running(tickets, self._layout, form, batch.rows, most, now, now + batch.seconds)
        self._running.add(run)
        for each in self._running:
            each.share(now, len(self._running) / self._workers)
        loop = asyncio.get_running_loop()
        try:
            self._executor.submit(self._work, run, loop)
        except RuntimeError:
            loop.call_soon(self._finished, run, Outcome([NotReady("the server is stopping")] * len(tickets), None))

    def _at_once(self, form: Form, rows: int) -> int:
        """Rows that there is memory for in one run; as many as share one there surely is."""
        elements = self._room.most() if rows > self._largest else 0
        return rows if elements is None else max(self._largest, elements // max(form.length, 1))

    def _work(self, run: Running, loop: asyncio.AbstractEventLoop) -> None:
        """On a thread of the executor."""
        outcome = execute(self._run, run, buffers=self._buffers, clock=self._clock)
        loop.call_soon_threadsafe(self._finished, run, outcome)

    def _finished(self, run: Running, outcome: Outcome) -> None:
        self._running.discard(run)
        if outcome.seconds is not None:
            # As it would take with the cores to itself, which is what was measured and what the queue is told by.
            self._latencies.observe(run.form, run.rows, seconds=outcome.seconds / run.sharing)
            self._queue.refresh(self._latencies.profile)
            self._ran(sum(_rows(ticket.arrays) for ticket in run.tickets), outcome.seconds)
            self._inline.seen(outcome.seconds)
            self._overrun.ended(asyncio.get_running_loop().time() - run.ends)
        # The next run begins before this one's answers are written.
        if self._queue:
            self._decide()
        for ticket, answer in zip(run.tickets, outcome.answers, strict=True):
            if ticket.future.done():
                continue
            if isinstance(answer, Exception):
                ticket.future.set_exception(answer)
            else:
                ticket.future.set_result(answer)
        self._check_emptied()

    def _ended(self, ticket: Ticket, future: asyncio.Future[list[Array]]) -> None:
        if future.cancelled() and self._queue.withdraw(ticket):
            self._check_emptied()

    def _check_emptied(self) -> None:
        if self._emptied is not None and not self._queue and not self._running:
            self._emptied.set()
            self._emptied = None

    def _refusal(self, reason: Reason, retry_after: float) -> RequestError:
        self._observer.shed(reason)
        retry_after = max(retry_after, LEAST_RETRY_SECONDS)
        if reason == "expired":
            return DeadlineExceeded("the deadline passed before the model could begin")
        if reason == "deadline":
            return Overloaded(
                f"the deadline cannot be met: {len(self._queue)} requests wait; try again in {retry_after:.2f} s",
                retry_after=retry_after,
            )
        limit = (
            f"{self._settings.max_queue_length} requests (max_queue_length)"
            if reason == "queue_length"
            else f"{self._settings.max_queue_bytes:,} bytes (max_queue_bytes)"
        )
        return Overloaded(f"the queue is full: {limit}; try again in {retry_after:.2f} s", retry_after=retry_after)


def _rows(arrays: Mapping[str, Array]) -> int:
    """The rows of a request, also of one that cannot be batched: the first dimension of its first input."""
    for array in arrays.values():
        return array.shape[0] if array.shape else 1
    return 1


def _refuse(ticket: Ticket, error: RequestError) -> None:
    if not ticket.future.done():
        ticket.future.set_exception(error)
