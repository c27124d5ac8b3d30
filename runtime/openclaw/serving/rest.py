"""What is served over HTTP, path by path: the Open Inference Protocol and its extensions, KServe's V1, metrics.

https://github.com/open-inference/open-inference-protocol and the extensions of
https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from openclaw.config import ServerOptions
from openclaw.errors import InvalidRequest, NotReady, RequestError, Unsupported
from openclaw.serving import openapi, statistics, v1
from openclaw.serving.controlling import check_parameters
from openclaw.serving.exchange import Exchange, open_inference, refused, v1_predict
from openclaw.serving.http.messages import Answer, Request, Soon, refusal
from openclaw.serving.metadata import configuration, extensions, metadata
from openclaw.serving.repository import Repository
from openclaw.serving.served import Served
from openclaw.serving.sharedmemory import Regions
from openclaw.serving.shown import shown
from openclaw.version import __version__

_Get = Callable[[Request], Answer | Awaitable[Answer]]
_READ = ("GET", "HEAD")


class Rest:
    """Answers for the models of a repository: call it with a request.

    Args:
        repository: the models.
        exchange: answers inferences.
        options: of the server, to describe it by.
        regions: shared memory that tensors may lie in; None where clients may not use it.
    """

    def __init__(
        self, repository: Repository, exchange: Exchange, *, options: ServerOptions, regions: Regions | None = None
    ) -> None:
        self._repository = repository
        self._exchange = exchange
        self._options = options
        self._regions = regions
        self._dialect = open_inference(regions)
        # What nearly every request asks for is found by its bytes alone.
        self._targets = {f"/v2/models/{name}/infer".encode(): name for name in repository.names()}
        self._documents: dict[str, _Get] = {
            "/v2": self._server,
            "/v2/health/live": self._live,
            "/v2/health/ready": self._ready,
            "/v2/models": self._models,
            "/v2/models/stats": self._all_statistics,
            "/v1/models": self._models,
            "/metrics": self._metrics,
            "/openapi.json": self._description,
        }

    def __call__(self, request: Request) -> Answer | Soon | Awaitable[Answer]:
        """Answers at once, soon, or later where the model takes its time."""
        try:
            name = self._targets.get(request.target)
            if name is not None and request.method == "POST":
                served = self._repository.find(name)
                answer = self._exchange.answer_shortly(request, served, self._dialect)
                return answer or self._exchange.answer(request, served, self._dialect)
            return self._route(request)
        except RequestError as error:
            return refused(error)

    def _route(self, request: Request) -> Answer | Awaitable[Answer]:
        path = request.path
        if document := self._documents.get(path):
            return document(request) if request.method in _READ else _not_allowed(request, *_READ)
        match path.split("/"):
            case ["", "v2", "models", name, "versions", version, *rest]:
                return self._model(request, name, version, verb="/".join(rest))
            case ["", "v2", "models", name, *rest]:
                return self._model(request, name, None, verb="/".join(rest))
            case ["", "v1", "models", name]:
                return self._v1(request, *name.rsplit(":", 1))
            case ["", "v2", "repository", *rest]:
                return self._in_repository(request, rest)
            case ["", "v2", "systemsharedmemory", *rest]:
                return self._shared_memory(request, rest)
        return _nothing_at(path)

    def _model(self, request: Request, name: str, version: str | None, *, verb: str) -> Answer | Awaitable[Answer]:
        if verb == "infer":
            if request.method != "POST":
                return _not_allowed(request, "POST")
            return self._exchange.answer(request, self._repository.find(name, version), self._dialect)
        if verb not in {"", "config", "ready", "stats"}:
            return _nothing_at(request.path)
        if request.method not in _READ:
            return _not_allowed(request, *_READ)
        if verb == "ready":
            return self._readiness({"name": name, "ready": self._repository.is_ready(name, version)})
        served = self._repository.find(name, version)
        if verb == "stats":
            return _statistics([served])
        if verb == "config":
            return _json(configuration(served.name, served.signature))
        return _json(metadata(served.name, served.version, served.signature))

    def _v1(self, request: Request, name: str, verb: str = "") -> Answer | Awaitable[Answer]:
        if verb == "predict":
            if request.method != "POST":
                return _not_allowed(request, "POST")
            return self._exchange.answer(request, self._repository.find(name), v1_predict)
        if verb:
            return _nothing_at(request.path)
        if request.method not in _READ:
            return _not_allowed(request, *_READ)
        return self._readiness(v1.status(name, ready=self._repository.is_ready(name)))

    def _in_repository(self, request: Request, rest: list[str]) -> Answer | Awaitable[Answer]:
        match rest:
            case ["index"]:
                return self._index(request) if request.method == "POST" else _not_allowed(request, "POST")
            case ["models", name, "load" | "unload" as verb]:
                if request.method != "POST":
                    return _not_allowed(request, "POST")
                return self._control(request, name, verb=verb)
        return _nothing_at(request.path)

    async def _control(self, request: Request, name: str, *, verb: str) -> Answer:
        try:
            if self._options.model_control:  # else nothing is, as the repository says
                check_parameters(_parameters(request))
            await (self._repository.load(name) if verb == "load" else self._repository.unload(name))
        except RequestError as error:
            return refused(error)
        target = f"/v2/models/{name}/infer".encode()
        if verb == "load":
            self._targets[target] = name
        else:
            self._targets.pop(target, None)
        return _json({})

    def _index(self, request: Request) -> Answer:
        only_ready = _document(request).get("ready", False)
        if not isinstance(only_ready, bool):
            raise InvalidRequest(f"ready is {shown(only_ready)}; true or false is needed")
        rows = [
            {"name": name, "version": version, "state": state, "reason": reason}
            for name, version, state, reason in self._repository.index()
            if state == "READY" or not only_ready
        ]
        return _json(rows)

    def _shared_memory(self, request: Request, rest: list[str]) -> Answer:
        if self._regions is None:
            raise Unsupported(
                "shared memory may not be used here; start the server with --shared-memory (server.sharedMemory) "
                "to allow it"
            )
        match rest:
            case ["status"] | ["region", _, "status"]:
                name = rest[1] if len(rest) == 3 else None
                return _json(self._regions.status(name)) if request.method in _READ else _not_allowed(request, *_READ)
            case ["unregister"] | ["region", _, "register" | "unregister"] if request.method != "POST":
                return _not_allowed(request, "POST")
            case ["region", name, "register"]:
                asked = _document(request)
                self._regions.register(
                    name, key=asked.get("key"), offset=asked.get("offset", 0), byte_size=asked.get("byte_size")
                )
                return _json({})
            case ["unregister"] | ["region", _, "unregister"]:
                self._regions.unregister(rest[1] if len(rest) == 3 else None)
                return _json({})
        return _nothing_at(request.path)

    def _server(self, _: Request) -> Answer:
        on = extensions(model_control=self._options.model_control, shared_memory=self._regions is not None)
        return _json({"name": "openclaw", "version": __version__, "extensions": on})

    def _live(self, _: Request) -> Answer:
        live = self._repository.live
        return _json({"live": live}, status=200 if live else NotReady.status)

    def _ready(self, _: Request) -> Answer:
        return self._readiness({"ready": self._repository.ready})

    def _readiness(self, document: dict[str, Any]) -> Answer:
        return _json(document, status=200 if document["ready"] else NotReady.status)

    def _description(self, _: Request) -> Answer:
        described = openapi.Options(
            version=__version__,
            models={served.name: served.signature for served in self._repository.served()},
            repository=self._options.model_control,
            shared_memory=self._regions is not None,
            max_bytes=self._options.max_request_bytes,
        )
        return _json(openapi.document(described))

    def _models(self, _: Request) -> Answer:
        return _json({"models": list(self._repository.names())})

    def _all_statistics(self, _: Request) -> Answer:
        return _statistics(self._repository.served())

    async def _metrics(self, request: Request) -> Answer:
        accept = (request.header(b"accept") or b"").decode("latin-1")
        body, content_type = await asyncio.to_thread(self._repository.telemetry.render, accept)
        return Answer(200, (body,), content_type=content_type.encode())


def _document(request: Request) -> dict[str, Any]:
    """A small JSON object; an empty body is an empty one."""
    if not request.body:
        return {}
    try:
        document = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body is {shown(document)}; an object is needed")
    return document


def _parameters(request: Request) -> dict[str, Any]:
    """Those of a small JSON object."""
    parameters = _document(request).get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"parameters is {shown(parameters)}; an object is needed")
    return parameters


def _statistics(models: list[Served]) -> Answer:
    documents = [
        statistics.document(served.name, served.version, served.statistics(), tier=served.tier) for served in models
    ]
    return _json({"model_stats": documents})


def _nothing_at(path: str) -> Answer:
    return refusal(404, f"there is nothing at {path:.200}; /openapi.json lists what there is")


def _not_allowed(request: Request, *allowed: str) -> Answer:
    listed = ", ".join(allowed)
    answer = refusal(405, f"{request.method} is not allowed on {request.path:.200}; allowed: {listed}")
    return answer._replace(headers=((b"Allow", listed.encode()),))


def _json(document: Any, *, status: int = 200) -> Answer:
    return Answer(status, (orjson.dumps(document),))
