"""The ports: to a cluster, with two adapters, `kubernetes` and `memory` for local mode and for property tests; and to
the servers in its pods, with the adapter `pods`.
"""

from dataclasses import dataclass
from typing import Protocol

from openclaw_operator.decide import Event
from openclaw_operator.names import Key, Kind, Manifest
from openclaw_operator.tiers import Question


class ApiError(Exception):
    """The cluster refused a request, or could not be asked.

    Attributes:
        status: HTTP status; 0 where no answer came.
        reason: Kubernetes' word for it, as in `NotFound`, `Conflict`, `Invalid`.
        retry_after: Seconds that the server asks to wait, if it does.
    """

    def __init__(self, message: str, *, status: int, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after

    @property
    def final(self) -> bool:
        """Whether the same request would be refused again: it is the request that is wrong."""
        return self.status in {400, 403, 405, 413, 415, 422}


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind, as of one moment."""

    kind: Kind
    items: tuple[Manifest, ...]
    version: str = ""
    """Resource version of that moment: where a watch goes on."""


class Cluster(Protocol):
    """What the operator does to a cluster. Every method raises `ApiError`."""

    async def list(self, kind: Kind) -> Listing:
        """All watched objects of a kind; children only where they carry the service's label."""
        ...

    async def service(self, key: Key) -> Manifest | None:
        """The service as it is now; None where it is gone."""
        ...

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply, forced, under the operator's field manager. Returns the object as it is now.

        A manifest with `metadata.resourceVersion` is applied only to that version (409 otherwise).
        """
        ...

    async def delete(self, manifest: Manifest) -> None:
        """Deletes the object if it still is the one observed (its UID); gone already is no error."""
        ...

    async def update_status(self, service: Manifest, status: Manifest) -> Manifest:
        """Replaces the status of a service that still is of the version observed (409 otherwise; 404 where it is gone).

        Returns the service as it is now.
        """
        ...

    async def emit(self, service: Manifest, event: Event) -> None:
        """Records an event about a service."""
        ...


class UnreachableError(Exception):
    """A pod could not be asked, or did not answer in time."""


class Pods(Protocol):
    """What the operator asks of the servers in pods."""

    async def statistics(self, question: Question) -> bytes:
        """The statistics of the model, as the server wrote them; empty where it refuses, or says too much.

        Raises:
            UnreachableError: it could not be asked.
        """
        ...
