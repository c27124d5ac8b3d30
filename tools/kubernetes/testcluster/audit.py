"""The API server's audit log: who asked for what. Tests count an operator's writes in it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
"""

_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class Request:
    """One request that the API server answered."""

    user: str
    verb: str
    path: str
    group: str
    resource: str
    """Plural resource with its subresource, such as `deployments` and `inferenceservices/status`."""
    namespace: str
    name: str
    status: int
    authorized: bool
    """Whether the user has the right; admission may have refused the request all the same, with the same status."""

    @property
    def is_write(self) -> bool:
        """Whether the request asked to change something (refused ones count too)."""
        return self.verb in _WRITES


class AuditLog:
    """Reads the log from where the last reading stopped, or from a mark."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def mark(self) -> int:
        """A place in the log: what is logged from now on lies after it."""
        return self._path.stat().st_size if self._path.exists() else 0

    def requests(self, *, since: int = 0, user: str | None = None) -> Iterator[Request]:
        """Yield the requests after mark `since`, of `user` if one is given, in the order of their answers.

        A request is logged before its answer is sent, so whoever has the answer finds it here.
        """
        if not self._path.exists():
            return
        with self._path.open("rb") as log:
            log.seek(since)
            for line in log:
                if not line.endswith(b"\n"):
                    return  # still being written
                request = _request(json.loads(line))
                if user is None or request.user == user:
                    yield request

    def writes(self, *, since: int = 0, user: str | None = None) -> list[Request]:
        """The requests after mark `since` that asked to change something."""
        return [request for request in self.requests(since=since, user=user) if request.is_write]


def _request(event: dict[str, object]) -> Request:
    user, target, answer, notes = (
        _mapping(event, key) for key in ("user", "objectRef", "responseStatus", "annotations")
    )
    resource, subresource = str(target.get("resource", "")), str(target.get("subresource", ""))
    return Request(
        user=str(user.get("username", "")),
        verb=str(event.get("verb", "")),
        path=str(event.get("requestURI", "")),
        group=str(target.get("apiGroup", "")),
        resource=f"{resource}/{subresource}" if subresource else resource,
        namespace=str(target.get("namespace", "")),
        name=str(target.get("name", "")),
        status=int(str(answer.get("code", 0))),
        authorized=notes.get("authorization.k8s.io/decision") != "forbid",
    )


def _mapping(event: dict[str, object], key: str) -> dict[str, object]:
    value = event.get(key)
    return value if isinstance(value, dict) else {}
