"""The Open Inference Protocol's paths: a request in, an answer out, and the model behind an endpoint between them.

https://github.com/open-inference/open-inference-protocol
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from openclaw.errors import NotReady, RequestError, UnsupportedEncoding
from openclaw.serving import protocol
from openclaw.serving.endpoint import Endpoint
from openclaw.serving.http.messages import Answer, Request, refusal
from openclaw.version import __version__

_HEADER_LENGTH = protocol.HEADER_LENGTH.lower().encode()
_Get = Callable[[Request], Answer | Awaitable[Answer]]


class Rest:
    """Answers for one endpoint: call it with a request."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        # What nearly every request asks for is found by its bytes alone.
        self._infer = f"/v2/models/{endpoint.name}/infer".encode()
        self._documents: dict[str, _Get] = {
            "/v2": self._server,
            "/v2/health/live": self._live,
            "/v2/health/ready": self._ready,
            "/v2/models": self._models,
            "/metrics": self._metrics,
        }

    def __call__(self, request: Request) -> Answer | Awaitable[Answer]:
        """Answers at once, or later where the model takes its time."""
        try:
            if request.target == self._infer and request.method == "POST":
                return self._inference(request)
            return self._route(request)
        except RequestError as error:
            return _refused(error)

    def _route(self, request: Request) -> Answer | Awaitable[Answer]:
        path = request.path
        if document := self._documents.get(path):
            return document(request) if request.method in {"GET", "HEAD"} else _not_allowed(request, "GET, HEAD")
        match path.split("/"):
            case ["", "v2", "models", name, *rest]:
                version = rest[1] if len(rest) > 1 and rest[0] == "versions" else None
                return self._model(request, name, version, verb="/".join(rest[2:] if version is not None else rest))
        return _nothing_at(path)

    def _model(self, request: Request, name: str, version: str | None, *, verb: str) -> Answer | Awaitable[Answer]:
        if verb == "infer":
            if request.method != "POST":
                return _not_allowed(request, "POST")
            # Only the served name becomes a label: names that clients invent would grow the metrics without end.
            self._endpoint.check(name, version)
            return self._inference(request)
        if verb not in {"", "ready"}:
            return _nothing_at(request.path)
        if request.method not in {"GET", "HEAD"}:
            return _not_allowed(request, "GET, HEAD")
        if verb == "":
            return _json(self._endpoint.metadata(name, version))
        self._endpoint.check(name, version)
        return self._readiness({"name": name, "ready": self._endpoint.ready})

    def _inference(self, request: Request) -> Answer | Awaitable[Answer]:
        self._endpoint.requests.begin()
        try:
            encoding = request.header(b"content-encoding")
            if encoding is not None and encoding.lower() != b"identity":
                shown = repr(encoding[:80].decode("latin-1"))
                raise UnsupportedEncoding(f"Content-Encoding is {shown}; send the body uncompressed (identity)")
            length = request.header(_HEADER_LENGTH)
            answer = self._endpoint.infer(request.body, None if length is None else length.decode("latin-1"))
        except BaseException as error:
            self._count(request, error)
            raise
        if isinstance(answer, protocol.Encoded):
            self._count(request)
            return _encoded(answer)
        return self._inference_later(request, answer)

    async def _inference_later(self, request: Request, coming: Awaitable[protocol.Encoded]) -> Answer:
        try:
            answer = await coming
        except RequestError as error:
            self._count(request, error)
            return _refused(error)
        except BaseException as error:
            self._count(request, error)
            raise
        self._count(request)
        return _encoded(answer)

    def _count(self, request: Request, error: BaseException | None = None) -> None:
        code = 200 if error is None else getattr(error, "status", 500)
        self._endpoint.requests.answered(code, request.received)

    def _server(self, _: Request) -> Answer:
        return _json({"name": "openclaw", "version": __version__, "extensions": ["binary_tensor_data"]})

    def _live(self, _: Request) -> Answer:
        return _json({"live": True})

    def _ready(self, _: Request) -> Answer:
        return self._readiness({"ready": self._endpoint.ready})

    def _readiness(self, document: dict[str, Any]) -> Answer:
        return _json(document, status=200 if self._endpoint.ready else NotReady.status)

    def _models(self, _: Request) -> Answer:
        return _json({"models": [self._endpoint.name]})

    async def _metrics(self, request: Request) -> Answer:
        accept = request.header(b"accept") or b""
        body, content_type = await self._endpoint.exposition(accept.decode("latin-1"))
        return Answer(200, (body,), content_type=content_type.encode())


def _encoded(answer: protocol.Encoded) -> Answer:
    if answer.header_length is None:
        return Answer(200, answer.parts)
    length = (protocol.HEADER_LENGTH.encode(), b"%d" % answer.header_length)
    return Answer(200, answer.parts, content_type=answer.content_type.encode(), headers=(length,))


def _refused(error: RequestError) -> Answer:
    return refusal(error.status, str(error))


def _nothing_at(path: str) -> Answer:
    return refusal(404, f"there is nothing at {path:.200}; the paths of the Open Inference Protocol begin with /v2")


def _not_allowed(request: Request, allowed: str) -> Answer:
    document = {"error": f"{request.method} is not allowed on {request.path:.200}; allowed: {allowed}"}
    return Answer(405, (orjson.dumps(document),), headers=((b"Allow", allowed.encode()),))


def _json(document: dict[str, Any], *, status: int = 200) -> Answer:
    return Answer(status, (orjson.dumps(document),))
