"""The Open Inference Protocol's paths on aiohttp: bytes and headers in, bytes and headers out."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from openclaw.errors import InvalidRequest, NotReady, RequestError, RequestTooLarge, UnsupportedEncoding
from openclaw.serving import protocol
from openclaw.serving.endpoint import Endpoint
from openclaw.serving.metrics import REST
from openclaw.version import __version__

log = logging.getLogger(__name__)

_ENDPOINT = web.AppKey("endpoint", Endpoint)
_MAX_BYTES = web.AppKey("max_bytes", int)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(endpoint: Endpoint, *, max_request_bytes: int) -> web.Application:
    """The application that answers for ``endpoint``; bodies above ``max_request_bytes`` are refused."""
    app = web.Application(middlewares=[_errors_as_json])
    app[_ENDPOINT] = endpoint
    app[_MAX_BYTES] = max_request_bytes
    app.router.add_get("/v2", _server_metadata)
    app.router.add_get("/v2/health/live", _live)
    app.router.add_get("/v2/health/ready", _ready)
    app.router.add_get("/v2/models", _models)
    app.router.add_get("/metrics", _metrics)
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        app.router.add_get(path, _model_metadata)
        app.router.add_get(f"{path}/ready", _model_ready)
        app.router.add_post(f"{path}/infer", _infer)
    return app


def build_runner(app: web.Application, *, drain_timeout: float) -> web.AppRunner:
    """A runner whose ``cleanup`` stops accepting and waits ``drain_timeout`` seconds for what is in flight."""
    # Bodies must arrive as they were sent: what a small gzip body unpacks to has no bound.
    # aiohttp takes a timeout of 0 as none at all.
    return web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        auto_decompress=False,
        shutdown_timeout=max(drain_timeout, 0.01),
    )


@web.middleware
async def _errors_as_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except RequestError as error:
        response = _json({"error": str(error)}, status=error.status)
        if isinstance(error, RequestTooLarge):
            # The rest of the body is still on its way; the connection cannot be used again.
            response.force_close()
    except web.HTTPException as error:
        response = _http_error(request, error)
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        response = _json({"error": "internal error; the server's log has the reason"}, status=500)
    response.headers["Server"] = "openclaw"
    if request.app[_ENDPOINT].draining:
        response.force_close()
    return response


def _http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    headers = {}
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        text = f"{request.method} is not allowed on {request.path}; allowed: {allowed}"
        headers["Allow"] = allowed
    elif error.status == 404:
        text = f"there is nothing at {request.path:.200}; the paths of the Open Inference Protocol begin with /v2"
    else:
        text = error.reason
    return _json({"error": text}, status=error.status, headers=headers)


async def _server_metadata(_: web.Request) -> web.Response:
    return _json({"name": "openclaw", "version": __version__, "extensions": ["binary_tensor_data"]})


async def _live(_: web.Request) -> web.Response:
    return _json({"live": True})


async def _ready(request: web.Request) -> web.Response:
    ready = request.app[_ENDPOINT].ready
    return _json({"ready": ready}, status=200 if ready else NotReady.status)


async def _models(request: web.Request) -> web.Response:
    return _json({"models": [request.app[_ENDPOINT].name]})


async def _model_metadata(request: web.Request) -> web.Response:
    return _json(request.app[_ENDPOINT].metadata(*_target(request)))


async def _model_ready(request: web.Request) -> web.Response:
    endpoint = request.app[_ENDPOINT]
    name, version = _target(request)
    endpoint.check(name, version)
    return _json({"name": name, "ready": endpoint.ready}, status=200 if endpoint.ready else NotReady.status)


async def _metrics(request: web.Request) -> web.Response:
    body, content_type = await request.app[_ENDPOINT].exposition(request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


async def _infer(request: web.Request) -> web.Response:
    endpoint = request.app[_ENDPOINT]
    # Only the served name becomes a label: names that clients invent would grow the metrics without end.
    endpoint.check(*_target(request))
    metrics, code, start = endpoint.metrics, 500, time.perf_counter()
    metrics.in_flight.labels(endpoint.name).inc()
    try:
        answer = await endpoint.infer(await _body(request), request.headers.get(protocol.HEADER_LENGTH))
        code = 200
    except RequestError as error:
        code = error.status
        raise
    finally:
        metrics.in_flight.labels(endpoint.name).dec()
        metrics.requests.labels(endpoint.name, REST, str(code)).inc()
        metrics.request_duration.labels(endpoint.name).observe(time.perf_counter() - start)
    headers = {"Content-Type": answer.content_type}
    if answer.header_length is not None:
        headers[protocol.HEADER_LENGTH] = str(answer.header_length)
    return web.Response(body=answer.body, headers=headers)


async def _body(request: web.Request) -> bytes:
    limit = request.app[_MAX_BYTES]
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedEncoding(f"Content-Encoding is {encoding!r:.80}; send the body uncompressed (identity)")
    if request.content_length is not None and request.content_length > limit:
        raise RequestTooLarge(f"the body has {request.content_length} bytes; allowed: {limit}")
    chunks, size = [], 0
    try:
        async for chunk in request.content.iter_any():
            size += len(chunk)
            if size > limit:
                raise RequestTooLarge(f"the body has more than {limit} bytes, which is what is allowed")
            chunks.append(chunk)
    except (web.RequestPayloadError, ConnectionError) as error:
        raise InvalidRequest(f"the body ended early or is badly framed: {error}") from error
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _target(request: web.Request) -> tuple[str, str | None]:
    return request.match_info["model"], request.match_info.get("version")


def _json(document: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=orjson.dumps(document), status=status, headers={**(headers or {}), "Content-Type": protocol.JSON}
    )
