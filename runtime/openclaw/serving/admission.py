"""Which large requests are let in: those whose bodies there is memory for, before they are read.

What is refused here has cost a head. A client that is told so may come again, or go to another server, and what was let
in goes on: without a budget, all of them would be ended by the kernel at once.
"""

from __future__ import annotations

from openclaw.errors import OverBudget, RequestError, RequestTooLarge
from openclaw.memory.pool.objects import Buffer, ObjectPool
from openclaw.serving.http.messages import Answer, Request, refusal
from openclaw.serving.recording import OVER_BUDGET, REST
from openclaw.serving.repository import Repository


class Admission:
    """Grants the bodies of HTTP requests their memory."""

    def __init__(self, repository: Repository, pool: ObjectPool) -> None:
        self._repository = repository
        self._pool = pool

    def take(self, request: Request, size: int) -> Buffer:
        """Memory for so many bytes of a body, counted for the model that is asked. Raises OverBudget."""
        return self._pool.take(size, model=self._model(request))

    def refuse(self, request: Request, error: OverBudget) -> Answer:
        """The answer where there is none; one that can never fit is told so."""
        budget = self._pool.account.budget
        retry_after: float | None = error.retry_after
        status, sentence = error.status, str(error)
        if budget is not None and error.needed > budget:
            status, retry_after = RequestTooLarge.status, None
            sentence = f"the body takes {error.needed:,} bytes of memory; server.memoryBudgetBytes is {budget:,} in all"
        self._count(request, status)
        return refusal(status, sentence, retry_after=retry_after)

    def _count(self, request: Request, status: int) -> None:
        try:
            served = self._repository.find(self._model(request))
        except RequestError:
            return
        requests = self._repository.telemetry.metrics.requests(served.name, served.version, REST)
        requests.begin()
        requests.refused(status, reason=OVER_BUDGET)

    def _model(self, request: Request) -> str:
        """The model in the request's path; empty where there is none of ours."""
        match request.path.split("/"):
            case ["", "v2", "models", name, *_]:
                pass
            case ["", "v1", "models", verb]:
                name = verb.rsplit(":", 1)[0]
            case _:
                return ""
        return name if name in self._repository.names() else ""
