"""What the gRPC server is tested with: a repository of real models that a test can hold up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from grpcserving.calls import LIMIT
from openclaw.errors import DeadlineExceeded, NotReady, UnknownModel
from openclaw.execute.session import Model
from openclaw.serving.binding import bind
from openclaw.serving.grpc.server import GrpcServer, Settings
from openclaw.serving.inference import InferRequest, InferResponse, Tensor


@dataclass
class Numbers:
    """The statistics of a model in these tests."""

    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: tuple[int, int] = (0, 0)
    fail: tuple[int, int] = (0, 0)
    queue: tuple[int, int] = (0, 0)
    compute_input: tuple[int, int] = (0, 0)
    compute_infer: tuple[int, int] = (0, 0)
    compute_output: tuple[int, int] = (0, 0)
    batches: dict[int, tuple[int, int]] = field(default_factory=dict)


class OneModel:
    """A real model with one thread; ``open`` lets inferences through, ``error`` is raised instead of one."""

    def __init__(self, model: Model, *, inline: bool = False) -> None:
        self.name = model.name
        self.version = "3"
        self.versions = ("3",)
        self.signature = model.signature
        self.ready = True
        self.inline = inline
        self.open = threading.Event()
        self.open.set()
        self.error: Exception | None = None
        self.deadlines: list[float | None] = []
        self.coming: list[asyncio.Future[InferResponse]] = []
        self.numbers = Numbers()
        self._model = model
        self._thread = ThreadPoolExecutor(1)

    def infer(
        self, request: InferRequest, *, deadline: float | None = None
    ) -> InferResponse | asyncio.Future[InferResponse]:
        self.deadlines.append(deadline)
        arrays, wanted = bind(request, self.signature)
        if self.error is not None:
            raise self.error
        loop = asyncio.get_running_loop()
        if deadline is not None and deadline <= loop.time():
            raise DeadlineExceeded("the deadline passed before the inference began")

        def run() -> InferResponse:
            assert self.open.wait(30)
            began = time.perf_counter_ns()
            results = self._model.infer([output.name for output in wanted], arrays)
            spent = time.perf_counter_ns() - began
            rows = len(next(iter(arrays.values())))
            self.numbers.inference_count += rows
            self.numbers.execution_count += 1
            self.numbers.compute_infer = (self.numbers.compute_infer[0] + 1, self.numbers.compute_infer[1] + spent)
            self.numbers.batches[rows] = (self.numbers.batches.get(rows, (0, 0))[0] + 1, spent)
            tensors = tuple(
                Tensor(output.name, self._model.datatypes[output.name], array, True, region=output.region)
                for output, array in zip(wanted, results, strict=True)
            )
            return InferResponse(self.name, self.version, tensors, request.id)

        if self.inline:
            return run()
        self.coming.append(loop.run_in_executor(self._thread, run))
        return self.coming[-1]

    def statistics(self) -> Numbers:
        return self.numbers

    def close(self) -> None:
        self.open.set()
        self._thread.shutdown()


class Models:
    """A repository of what the tests put there; models can be taken out and back."""

    def __init__(self, *served: OneModel) -> None:
        self.live = True
        self.all = {each.name: each for each in served}
        self.out: set[str] = set()

    @property
    def ready(self) -> bool:
        return not self.out and all(each.ready for each in self.all.values())

    def names(self) -> tuple[str, ...]:
        return tuple(self.all)

    def find(self, name: str, version: str | None) -> OneModel:
        served = self.all.get(name)
        if served is None:
            raise UnknownModel(f"there is no model {name!r}; served here: {', '.join(self.all)}")
        if version not in (None, served.version):
            raise UnknownModel(f"model {name!r} has no version {version!r}; it has: {served.version!r}")
        if name in self.out:
            raise NotReady(f"model {name!r} is not loaded")
        return served

    def is_ready(self, name: str, version: str | None) -> bool:
        try:
            return self.find(name, version).ready
        except NotReady:
            return False

    def index(self) -> Sequence[tuple[str, str, str, str]]:
        return [
            (name, each.version, "UNAVAILABLE" if name in self.out else "READY", "unloaded" if name in self.out else "")
            for name, each in self.all.items()
        ]

    async def load(self, name: str) -> None:
        self.out.discard(name)
        self.find(name, None)

    async def unload(self, name: str) -> None:
        self.find(name, None)
        self.out.add(name)


@dataclass
class Running:
    server: GrpcServer
    models: Models
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def digits(self) -> OneModel:
        return self.models.all["digits"]


@asynccontextmanager
async def serve(*served: OneModel, settings: Settings | None = None, **options: Any) -> AsyncIterator[Running]:
    models = Models(*served)
    if options.pop("loading", False):
        options["loading"] = models
    server = GrpcServer(models, settings or Settings(max_message_bytes=LIMIT), **options)
    try:
        yield Running(server, models, await server.start())
    finally:
        for each in served:
            each.open.set()
        await server.stop(5)
        for each in served:
            each.close()
