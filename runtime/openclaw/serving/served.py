"""One version of a model that answers inferences, whatever protocol carries them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from time import perf_counter

from openclaw.errors import InvalidRequest
from openclaw.execute.session import Array
from openclaw.memory.pool.objects import ObjectPool
from openclaw.memory.tiers import Tier
from openclaw.serving.batching.assembly import Buffers
from openclaw.serving.batching.batcher import Batcher
from openclaw.serving.batching.hop import HOP_SECONDS
from openclaw.serving.binding import bind
from openclaw.serving.dormant import Dormant, Wake
from openclaw.serving.inference import InferRequest, InferResponse, RequestedOutput, Tensor
from openclaw.serving.loading import Loaded, measured, settings_of
from openclaw.serving.recording import ModelMetrics
from openclaw.serving.shortcut import Shortcut, shortcut_to
from openclaw.serving.shown import shown
from openclaw.serving.statistics import Statistics
from openclaw.serving.threads import in_thread

_MICROSECONDS = 1e-6


class Served:
    """Answers inferences of one loaded model; used from one event loop.

    Attributes:
        name: the model's.
        version: which version of it this is.
        signature: its inputs and outputs.
        ready: whether it should be sent inferences.
        shortcut: answers small requests, where the model is quick; None where that cannot be.
    """

    def __init__(
        self,
        loaded: Loaded,
        version: str,
        *,
        metrics: ModelMetrics,
        executor: Executor,
        runs: int,
        spare: int = 0,
        hop: float = HOP_SECONDS,
        pool: ObjectPool | None = None,
    ) -> None:
        """
        Args:
            loaded: the model, warmed up.
            version: to answer for.
            metrics: of the model.
            executor: whose threads run it.
            runs: of the model at the same time.
            spare: runs that may share the cores of these.
            hop: seconds that it costs to have something run by the executor.
            pool: where batches and large outputs lie; None: memory of its own.
        """
        self.name = loaded.config.name
        self.version = version
        self.versions = (version,)
        self.signature = loaded.model.signature
        self.ready = True
        self._statistics = Statistics()
        self._loaded = loaded
        self._datatypes = loaded.model.datatypes
        self._metrics = metrics
        self._measuring = False
        self._readers = 0
        self._all_read = asyncio.Event()
        self._dormant: Dormant | None = None
        self._buffers = Buffers(pool, self.name)
        self._batch = partial(
            Batcher,
            settings=settings_of(loaded.config),
            executor=executor,
            observer=_Observer(metrics, self._statistics),
            concurrency=runs,
            spare=spare,
            hop=hop,
            buffers=self._buffers,
        )
        self._batcher: Batcher | Dormant
        self.shortcut: Shortcut | None
        self._open(loaded)

    def infer(
        self, request: InferRequest, *, deadline: float | None = None
    ) -> InferResponse | Awaitable[InferResponse]:
        """Answers at once, or later where the model takes its time; cancelling the awaiting gives the inference up.

        Args:
            request: is held against the signature here.
            deadline: ``loop.time()`` after which nobody waits for the answer; the request's own parameter
                ``timeout``, in microseconds, may make it earlier.

        Raises:
            RequestError: at once, or where it is awaited.
        """
        began = perf_counter()
        try:
            arrays, wanted = bind(request, self.signature)
            if request.parameters:
                deadline = _earlier(deadline, request)
            answer = self._batcher.submit(arrays, tuple([output.name for output in wanted]), deadline=deadline)
        except BaseException:
            self._statistics.failed(perf_counter() - began)
            raise
        if isinstance(answer, list):
            self._statistics.answered(perf_counter() - began)
            return self._response(request, wanted, answer)
        return self._later(request, wanted, answer, began=began)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While a request to it is being read, which takes a thread and its time, it is not retired."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers:
                self._all_read.set()

    def statistics(self) -> Statistics:
        """What it did so far."""
        return self._statistics

    @property
    def longest_run(self) -> float:
        """Seconds since the oldest run began that has not ended."""
        return self._batcher.oldest_running()

    @property
    def tier(self) -> Tier:
        """Where its weights are."""
        return Tier.EVICTED if isinstance(self._batcher, Dormant) else self._loaded.tier

    @property
    def busy(self) -> bool:
        """Whether requests wait or run, or it is being measured."""
        batcher = self._batcher
        if not isinstance(batcher, Dormant) and (batcher.waiting or batcher.running):
            return True
        # Who waited for the model to come back has its answer before the model may go again.
        return self._measuring or (self._dormant is not None and self._dormant.busy)

    @property
    def last_used(self) -> float:
        """When it last answered, by ``time.time()``; 0: never."""
        return self._statistics.last_inference_ms / 1e3

    async def measure(self) -> None:
        """Measures how long batches take, on a thread, and goes by that from then on; not of a model on disk."""
        batcher = self._batcher
        if isinstance(batcher, Dormant):
            return
        self._measuring = True
        try:
            loaded = await in_thread(measured, self._loaded)
        finally:
            self._measuring = False
        # It may have been opened anew meanwhile, in another tier.
        if self._batcher is batcher:
            self._loaded = loaded
            batcher.adopt(loaded.profile)
            if self.shortcut is not None:
                self.shortcut.forget()

    async def evict(self, wake: Wake) -> None:
        """Gives the model's memory back once what came is answered; what comes has it brought back, and waits.

        Args:
            wake: has :meth:`take` called.
        """
        settings = settings_of(self._loaded.config)
        before, shortcut = self._batcher, self.shortcut
        self._batcher = self._dormant = Dormant(wake, self._awake, settings)
        self.shortcut = None
        await self._close(before, shortcut, self._loaded)

    async def take(self, loaded: Loaded) -> None:
        """Answers with the same model opened anew, and gives back the memory of what it was opened as before."""
        before, shortcut, old = self._batcher, self.shortcut, self._loaded
        loaded.model.worked |= old.model.worked  # being the same model
        self._open(replace(loaded, profile=old.profile))
        # Those who wait with it go on by themselves.
        if not isinstance(before, Dormant):
            await self._close(before, shortcut, old)

    async def retire(self) -> None:
        """Refuses what comes, once what came is answered."""
        self.ready = False
        while self._readers:
            self._all_read.clear()
            await self._all_read.wait()
        closed: Batcher | Dormant | None = None
        # One that was on disk is opened for those who wait for it, and then has to be closed as well.
        while self._batcher is not closed:
            closed = self._batcher
            await self._close(closed, self.shortcut, self._loaded)

    def _open(self, loaded: Loaded) -> None:
        self._loaded = loaded
        loaded.model.place_outputs(self._buffers.array)
        self._batcher = batcher = self._batch(loaded.model.infer, profile=loaded.profile)
        quick = loaded.inline or loaded.model
        self.shortcut = shortcut_to(quick, batcher, self._statistics, name=self.name, version=self.version)

    def _awake(self) -> Batcher | None:
        return None if isinstance(self._batcher, Dormant) else self._batcher

    async def _close(self, batcher: Batcher | Dormant, shortcut: Shortcut | None, loaded: Loaded) -> None:
        await batcher.drained()
        if shortcut is not None:
            shortcut.flush()
        batcher.close()
        if not self._measuring:
            loaded.close()

    async def _later(
        self,
        request: InferRequest,
        wanted: tuple[RequestedOutput, ...],
        coming: asyncio.Future[list[Array]],
        *,
        began: float,
    ) -> InferResponse:
        try:
            results = await coming
        except BaseException:
            self._statistics.failed(perf_counter() - began)
            raise
        self._statistics.answered(perf_counter() - began)
        return self._response(request, wanted, results)

    def _response(
        self, request: InferRequest, wanted: tuple[RequestedOutput, ...], results: list[Array]
    ) -> InferResponse:
        datatypes = self._datatypes
        tensors = tuple(
            [
                Tensor(output.name, datatypes[output.name], array, output.binary, region=output.region)
                for output, array in zip(wanted, results, strict=True)
            ]
        )
        return InferResponse(self.name, self.version, tensors, request.id)


class _Observer:
    """Counts what the batcher does."""

    def __init__(self, metrics: ModelMetrics, statistics: Statistics) -> None:
        self._metrics = metrics
        self._statistics = statistics
        self.shed = metrics.shed

    def queued(self, seconds: float) -> None:
        self._metrics.queued(seconds)
        self._statistics.queued(seconds)

    def ran(self, rows: int, seconds: float) -> None:
        self._metrics.ran(rows, seconds)
        self._statistics.ran(rows, seconds)


def _earlier(deadline: float | None, request: InferRequest) -> float | None:
    timeout = request.parameters.get("timeout")
    if timeout is None:
        return deadline
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
        raise InvalidRequest(f"parameters.timeout is {shown(timeout)}; a whole number of microseconds is needed")
    if timeout == 0:
        return deadline
    own = asyncio.get_running_loop().time() + timeout * _MICROSECONDS
    return own if deadline is None else min(own, deadline)
