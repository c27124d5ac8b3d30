"""What is served, whatever carries it: the phase, the model, and an inference from bytes to bytes.

An HTTP or gRPC front end only moves bytes and headers in and out of an :class:`Endpoint`.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Any

from openclaw.errors import NotReady, UnknownModel
from openclaw.execute.session import Array, Model
from openclaw.serving import protocol
from openclaw.serving.recording import REST
from openclaw.serving.telemetry import Telemetry

VERSION = "1"

HOP_SECONDS = 100e-6
"""What it costs to have something run in another thread and to be told of its end: 50 to 100 us where measured."""
_SMALL_BODY = 16 * 1024
_RISE = 1.01
"""How much the shortest time may grow with each longer inference: a pause of the machine is not the model's."""


class Phase(Enum):
    """Where the server is in its life; only READY tells load balancers to send requests."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


class Endpoint:
    """One model's name, phase and, once loaded, the model itself; used from one event loop."""

    def __init__(self, name: str, telemetry: Telemetry, *, concurrency: int) -> None:
        self.name = name
        self.metrics = telemetry.metrics.model(name)
        self.requests = telemetry.metrics.requests(name, VERSION, REST)
        self._telemetry = telemetry
        self.phase = Phase.LOADING
        self._model: Model | None = None
        self._shortest = float("inf")
        self._executor = ThreadPoolExecutor(concurrency, thread_name_prefix="inference")

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here."""
        return self.phase is Phase.READY

    @property
    def draining(self) -> bool:
        """Whether the server is stopping: it still answers, and asks every client to hang up."""
        return self.phase is Phase.DRAINING

    def open(self, model: Model, *, quickest: float = float("inf")) -> None:
        """Starts answering inferences with a model that was warmed up; ``quickest``: its fastest inference, seconds."""
        self._model = model
        self._shortest = quickest
        if self.phase is Phase.LOADING:
            self.phase = Phase.READY
            self.metrics.ready(True)

    def drain(self) -> None:
        """Tells load balancers to stop; requests that still come are answered."""
        self.phase = Phase.DRAINING
        self.metrics.ready(False)

    def metadata(self, name: str, version: str | None) -> dict[str, Any]:
        """The model metadata document."""
        return protocol.metadata(name, VERSION, self._serving(name, version).signature)

    def check(self, name: str, version: str | None) -> None:
        """Raises UnknownModel unless ``name`` and ``version`` are what is served here."""
        if name != self.name:
            raise UnknownModel(f"there is no model {name!r:.120}; served here: {self.name!r}")
        if version is not None and version != VERSION:
            raise UnknownModel(f"model {name!r} has no version {version!r:.120}; it has: {VERSION!r}")

    def infer(
        self, body: bytes | bytearray, header_length: str | None
    ) -> protocol.Encoded | asyncio.Future[protocol.Encoded]:
        """Answers one inference request: at once where that takes less than handing it to another thread would.

        Otherwise decoding and encoding, too, run off the event loop.
        """
        model = self._serving(self.name, None)
        if self._shortest < HOP_SECONDS and len(body) <= _SMALL_BODY:
            return self._answer(model, body, header_length)
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._executor, self._answer, model, body, header_length)

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """The Prometheus exposition and its content type."""
        return await asyncio.to_thread(self._telemetry.render, accept)

    def _serving(self, name: str, version: str | None) -> Model:
        self.check(name, version)
        if self._model is None:
            raise NotReady(f"model {name!r} is {self.phase.value}")
        return self._model

    def _answer(self, model: Model, body: bytes | bytearray, header_length: str | None) -> protocol.Encoded:
        request = protocol.decode_request(body, header_length)
        arrays, wanted = protocol.bind(request, model.signature)
        start = time.perf_counter()
        results = model.infer([output.name for output in wanted], arrays)
        seconds = time.perf_counter() - start
        self._shortest = min(seconds, self._shortest * _RISE)
        self.metrics.ran(_rows(arrays), seconds)
        tensors = tuple(
            protocol.Tensor(output.name, model.datatypes[output.name], array, output.binary)
            for output, array in zip(wanted, results, strict=True)
        )
        return protocol.encode_response(protocol.InferResponse(self.name, VERSION, tensors, request.id))


def _rows(arrays: dict[str, Array]) -> int:
    """The rows of a request: the first dimension of its first input."""
    first = next(iter(arrays.values()), None)
    return int(first.shape[0]) if first is not None and first.ndim else 1
