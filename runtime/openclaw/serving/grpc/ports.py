"""What the gRPC service needs of whatever serves the models; nothing here knows of gRPC."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from openclaw.graph.signature import Signature
from openclaw.serving.inference import InferRequest, InferResponse

Spent = tuple[int, int]
"""How often something was done, and the nanoseconds that it took in all."""


class Statistics(Protocol):
    """What one version of a model did since the server started."""

    @property
    def last_inference_ms(self) -> int:
        """When the last inference was answered, in milliseconds since 1970; 0: none was."""

    @property
    def inference_count(self) -> int:
        """Rows that were computed."""

    @property
    def execution_count(self) -> int:
        """Runs of the model."""

    @property
    def success(self) -> Spent:
        """Requests answered, and the time from a request's arrival to its answer."""

    @property
    def fail(self) -> Spent:
        """Requests refused or failed."""

    @property
    def queue(self) -> Spent:
        """Waiting of requests."""

    @property
    def compute_input(self) -> Spent:
        """Putting batches together."""

    @property
    def compute_infer(self) -> Spent:
        """Runs of the model."""

    @property
    def compute_output(self) -> Spent:
        """Taking results apart."""

    @property
    def batches(self) -> Mapping[int, Spent]:
        """Runs of the model by their rows."""


class Served(Protocol):
    """One version of a model."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def version(self) -> str:
        """Which version this is."""

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version of the model."""

    @property
    def signature(self) -> Signature:
        """Its inputs and outputs."""

    def infer(
        self, request: InferRequest, *, deadline: float | None = None
    ) -> InferResponse | Awaitable[InferResponse]:
        """Answers at once, or later where the model takes its time; cancelling the awaiting gives the inference up.

        Args:
            request: is held against the signature here.
            deadline: ``loop.time()`` after which nobody waits for the answer.

        Raises:
            RequestError: at once, or where it is awaited.
        """

    def statistics(self) -> Statistics:
        """What it did so far."""


class Repository(Protocol):
    """The models of a server."""

    @property
    def live(self) -> bool:
        """Whether the server works at all."""

    @property
    def ready(self) -> bool:
        """Whether every model should be sent inferences."""

    def names(self) -> tuple[str, ...]:
        """Every model."""

    def find(self, name: str, version: str | None) -> Served:
        """A version of a model, the server's choice where ``version`` is None; raises UnknownModel or NotReady."""

    def is_ready(self, name: str, version: str | None) -> bool:
        """Whether a version of a model should be sent inferences; raises UnknownModel."""

    def index(self) -> Sequence[tuple[str, str, str, str]]:
        """Name, version, state and its reason of every version of every model; state ``READY`` is one that is."""


class Loading(Protocol):
    """Loads and unloads models while others are served."""

    async def load(self, name: str) -> None:
        """Loads a model, or loads it anew; returns when it is ready. Raises RequestError."""

    async def unload(self, name: str) -> None:
        """Takes a model out of service. Raises RequestError."""


class Recorder(Protocol):
    """Counts the requests for one version of a model."""

    def begin(self) -> None:
        """A request is there whole."""

    def answered(self, code: int, received: float) -> object:
        """It was answered with an HTTP status; ``received`` is perf_counter() when it was there."""

    def refused(self, code: int, *, reason: str | None = None) -> object:
        """It was refused with an HTTP status because of load; ``reason``, if nobody counted that yet."""
