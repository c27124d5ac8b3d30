"""What the serving path measures, cheap enough to stay on.

Objects are bound once to a model, a version and a protocol; recording then only adds to numbers of this
process, which ``publish`` copies into its slot of the shared counters. :mod:`openclaw.serving.exposition` turns
them into samples when scraped. Everything is called on the event loop's thread unless it says otherwise: an
addition is not atomic.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from openclaw.memory.accounting import Account
from openclaw.memory.tiers import Tier
from openclaw.serving import families, summary
from openclaw.serving.counters import SharedCounters
from openclaw.serving.families import SECONDS_BUCKETS

WINDOW_SECONDS = 60.0
PUBLISH_SECONDS = 0.1

MAX_PENDING = 4096
"""Durations that wait to be sorted into buckets; more are sorted at once."""

OVER_BUDGET = "memory"
"""The reason under which a request is counted as shed that there was no memory for."""

REST = "rest"
GRPC = "grpc"


class Observations:
    """Values of one histogram that wait to be sorted into its buckets, many at a time: far cheaper than one by one.

    ``append`` is a list's own, and so may be called on any thread.
    """

    __slots__ = ("_at", "_bounds", "_cells", "_values", "append")

    def __init__(self, cells: list[float], at: int, *, bounds: tuple[float, ...]) -> None:
        self._cells = cells
        self._at = at
        self._bounds = np.array(bounds)
        self._values: list[float] = []
        self.append = self._values.append

    def __len__(self) -> int:
        return len(self._values)

    def fold(self) -> NDArray[np.float64] | None:
        """Counts what waits, and gives it; None where nothing does. By one thread at a time."""
        if not self._values:
            return None
        taken = self._values[:]
        # What another thread appended meanwhile stays.
        del self._values[: len(taken)]
        values = np.array(taken, dtype=np.float64)
        counts = np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._bounds) + 1)
        for bucket in counts.nonzero()[0].tolist():
            self._cells[self._at + bucket] += float(counts[bucket])
        self._cells[self._at + len(counts)] += float(values.sum())
        return values


class ServingMetrics:
    """The metrics that this process records; made after the fork.

    Args:
        counters: shared by all processes of the server.
        slot: this process's own; whoever had it before has ended, and its counts go on.
        window: seconds that the latency quantiles look back; the same in every process.
    """

    def __init__(self, counters: SharedCounters, *, slot: int = 0, window: float = WINDOW_SECONDS) -> None:
        self._slot = counters.slot(slot)
        self._slot.take()
        self.cells: list[float] = []
        self.window = window
        self._places: dict[bytes, int] = {}
        self._published: list[tuple[int, int, int]] = []
        self._windows: list[tuple[summary.Window, int, int]] = []
        self._publishing = threading.Lock()
        self._models: dict[str, ModelMetrics] = {}
        self._requests: dict[tuple[str, str, str], RequestMetrics] = {}
        self._observed: list[Observations] = []
        self._accounts: list[tuple[Account, Callable[[], None]]] = []
        for key, values in self._slot.blocks():
            if families.parse(key)[0].is_gauge:
                values[:] = 0.0
        self._pauses = [self.block(families.GC_PAUSE, str(generation)) for generation in range(3)]

    def block(self, family: families.Family, *labels: str) -> int:
        """Where in ``cells`` the numbers of one labelled series begin; counts of the slot's last owner go on."""
        key = family.key(*labels)
        if key in self._places:
            return self._places[key]
        place, size, shared = len(self.cells), family.cells, self._slot.block(key, family.cells)
        self.cells.extend([0.0] * size if shared is None else self._slot.read(shared, size))
        self._places[key] = place
        if shared is not None and family.kind != "window":
            self._published.append((place, shared, size))
        return place

    def window_of(self, model: str) -> summary.Window:
        """The window of a model's latencies."""
        place = self.block(families.LATENCY, model)
        window = summary.Window(self.cells, place, seconds=self.window)
        shared = self._slot.block(families.LATENCY.key(model), families.LATENCY.cells)
        if shared is not None:
            self._windows.append((window, place, shared))
        return window

    def publish(self) -> None:
        """Shows all processes what this one counted; every PUBLISH_SECONDS, before a scrape, and at the end.

        On any thread: what it copies is a moment's state of each series.
        """
        # Two at once could put the older of two states last, and a counter would go down.
        with self._publishing:
            self._fold()
            if not self._slot.mine:
                return  # another process counts here now, and took this one for dead
            self._read_accounts()
            for place, shared, size in tuple(self._published):
                self._slot.write(shared, self.cells[place : place + size])
            for window, place, shared in tuple(self._windows):
                for at in window.touched():
                    self._slot.write(shared + at - place, self.cells[at : at + summary.STRIDE])

    def beat(self, now: float, *, since: float) -> None:
        """Says to all processes that the event loop turns; see :meth:`openclaw.serving.counters.Slot.beat`."""
        if self._slot.mine:
            self._slot.beat(now, since=since)

    def model(self, name: str) -> ModelMetrics:
        """The metrics of a model, whatever version and protocol."""
        if name not in self._models:
            self._models[name] = ModelMetrics(self, name)
        return self._models[name]

    def requests(self, model: str, version: str, protocol: str) -> RequestMetrics:
        """What the front end of one protocol records for one version of a model."""
        key = model, version, protocol
        if key not in self._requests:
            self._requests[key] = RequestMetrics(self, model, version=version, protocol=protocol)
        return self._requests[key]

    def memory(self, account: Account, settle: Callable[[], None]) -> None:
        """Shows an account in ``openclaw_memory_bytes``, line by line; ``rss`` is there by itself.

        Args:
            account: whose lines are shown.
            settle: brings it up to date.
        """
        self._accounts.append((account, settle))
        self.budget(account.budget)

    def budget(self, budget: int | None) -> None:
        """How much there may be on the account from now on."""
        if budget is not None:
            self.cells[self.block(families.MEMORY_BUDGET)] = float(budget)

    def _read_accounts(self) -> None:
        for account, settle in self._accounts:
            settle()
            for entry, size in account.entries().items():
                self.cells[self.block(families.MEMORY, *entry)] = float(size)

    def observations(self, family: families.Family, *labels: str) -> Observations:
        """What a histogram's series is recorded with."""
        made = Observations(self.cells, self.block(family, *labels), bounds=family.buckets)
        self._observed.append(made)
        return made

    def fold(self) -> None:
        """Sorts what waits into buckets."""
        with self._publishing:
            self._fold()

    def _fold(self) -> None:
        for requests in tuple(self._requests.values()):
            requests.fold(perf_counter())
        for observations in tuple(self._observed):
            observations.fold()

    def gc_paused(self, generation: int, seconds: float) -> None:
        """One collection of ``generation`` stopped this process; on any thread (collections never overlap)."""
        cells, at = self.cells, self._pauses[generation]
        cells[at] += 1.0
        cells[at + 1] += seconds
        if seconds > cells[at + 2]:
            cells[at + 2] = seconds

    def activity(self) -> tuple[float, float]:
        """Requests answered by this process so far, and those in flight."""
        answered = sum(requests.answers() for requests in self._requests.values())
        return answered, sum(model.in_flight for model in self._models.values())


class ModelMetrics:
    """What concerns a model as a whole.

    Attributes:
        queued: called with the seconds that one request waited before it ran, not for one that ran inline; on any
            thread.
        window: the latencies of late.
    """

    __slots__ = ("_at_flight", "_cells", "_inference", "_metrics", "_name", "_reloads", "_rows", "queued", "window")

    def __init__(self, metrics: ServingMetrics, name: str) -> None:
        self._metrics = metrics
        self._name = name
        self._cells = metrics.cells
        self._at_flight = metrics.block(families.IN_FLIGHT, name)
        self.queued = metrics.observations(families.QUEUE, name).append
        self._rows = metrics.observations(families.BATCH_SIZE, name).append
        self._inference = metrics.observations(families.INFERENCE_DURATION, name).append
        self._reloads: Callable[[float], None] | None = None
        self.window = metrics.window_of(name)
        self.ready(False)

    @property
    def in_flight(self) -> float:
        """Requests being answered by this process now."""
        return float(self._cells[self._at_flight])

    def ran(self, rows: int, seconds: float) -> None:
        """One run of the model over ``rows`` rows took this long; on any thread."""
        self._inference(seconds)
        self._rows(rows)

    def ready(self, ready: bool) -> None:
        """Whether this process answers requests for the model."""
        self._cells[self._metrics.block(families.READY, self._name)] = float(ready)

    def loaded(self, seconds: float) -> None:
        """Download, load and warm-up together took this long."""
        self._cells[self._metrics.block(families.LOAD_SECONDS, self._name)] = seconds

    def load_failed(self, reason: str) -> None:
        """The model could not be brought up; ``reason`` is one of a fixed set."""
        self._cells[self._metrics.block(families.LOAD_FAILURES, self._name, reason)] += 1.0

    def tier(self, tier: Tier) -> None:
        """Where this process has the model's weights."""
        for each in Tier:
            self._cells[self._metrics.block(families.TIER, self._name, each)] = float(each is tier)

    def evicted(self) -> None:
        """The model gave its memory back."""
        self._cells[self._metrics.block(families.EVICTIONS, self._name)] += 1.0

    def reloaded(self, seconds: float) -> None:
        """The model was opened again for requests, which took this long."""
        self._reloads = self._reloads or self._metrics.observations(families.RELOAD, self._name).append
        self._reloads(seconds)

    def shed(self, reason: str) -> None:
        """A request was refused for ``reason``, one of a fixed set."""
        self._cells[self._metrics.block(families.SHED, self._name, reason)] += 1.0


class RequestMetrics:
    """Counts the requests of one model, version and protocol: ``begin``, then ``answered`` or ``refused``."""

    __slots__ = ("_at_flight", "_cells", "_codes", "_durations", "_labels", "_metrics", "_model")

    def __init__(self, metrics: ServingMetrics, model: str, *, version: str, protocol: str) -> None:
        self._metrics = metrics
        self._model = metrics.model(model)
        self._labels = model, version, protocol
        self._cells = metrics.cells
        self._at_flight = metrics.block(families.IN_FLIGHT, model)
        self._durations = Observations(
            metrics.cells, metrics.block(families.REQUEST_DURATION, model, protocol), bounds=SECONDS_BUCKETS
        )
        self._codes: dict[int | str, int] = {}

    def begin(self) -> None:
        """A request is there whole, or its body is awaited."""
        self._cells[self._at_flight] += 1.0

    def answered(self, code: int | str, received: float) -> float:
        """It was answered with ``code``; ``received`` is perf_counter() at its first byte. Returns its seconds.

        perf_counter() is the system's monotonic clock (CLOCK_MONOTONIC), so all processes share the window's slices.
        """
        seconds = perf_counter() - received
        cells = self._cells
        cells[self._at_flight] -= 1.0
        try:
            cells[self._codes[code]] += 1.0
        except KeyError:
            cells[self._code(code)] += 1.0
        self._durations.append(seconds)
        if len(self._durations) > MAX_PENDING:
            self._metrics.fold()
        return seconds

    def answered_at_once(self, code: int, received: float) -> None:
        """One that did not ``begin``: within one turn of the event loop nobody can see it in flight."""
        self._cells[self._at_flight] += 1.0
        self.answered(code, received)

    def fold(self, now: float) -> None:
        """Sorts what waits into the buckets of the histogram and of the window."""
        values = self._durations.fold()
        if values is not None:
            self._model.window.record(values, now)

    def refused(self, code: int | str, *, reason: str | None = None) -> None:
        """It was refused because of load: counted, but not as a latency, which quick refusals would flatter.

        Args:
            code: that it was answered with.
            reason: under which it is counted as shed; None: that was done by whoever refused it.
        """
        self._cells[self._at_flight] -= 1.0
        self._cells[self._code(code)] += 1.0
        if reason is not None:
            self._model.shed(reason)

    def answers(self) -> float:
        """Requests ended so far, counts of a process before this one in the slot included."""
        return sum(self._cells[at] for at in self._codes.values())

    def _code(self, code: int | str) -> int:
        if code not in self._codes:
            self._codes[code] = self._metrics.block(families.REQUESTS, *self._labels, str(code))
        return self._codes[code]
