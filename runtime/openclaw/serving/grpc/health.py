"""``grpc.health.v1`` that follows readiness: what Kubernetes' gRPC probes and load balancers ask.

The service ``""`` and ``inference.GRPCInferenceService`` stand for all models, a model's name for that model.
Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from openclaw.errors import UnknownModel
from openclaw.serving.grpc.ports import Repository

SERVICE = "grpc.health.v1.Health"
POLL_SECONDS = 0.2
"""How soon a watcher is told of a change."""

_SERVING: int = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: int = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN: int = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """Answers health checks from the repository's present state.

    Args:
        repository: the models.
        whole: names of services that stand for all models.
    """

    def __init__(self, repository: Repository, whole: frozenset[str]) -> None:
        self._repository = repository
        self._whole = whole
        self._draining = False
        self._ended = asyncio.Event()

    def handler(self) -> grpc.GenericRpcHandler:
        """The service's methods."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Check": grpc.unary_unary_rpc_method_handler(self._check),
                "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
            },
        )

    def drain(self) -> None:
        """From now on nothing is SERVING."""
        self._draining = True

    def end(self) -> None:
        """Nothing is SERVING, and nobody is told of changes any more: watching ends."""
        self._draining = True
        self._ended.set()

    async def _check(self, message: bytes, context: Any) -> bytes:
        service = await _service(message, context)
        status = self._status(service)
        if status == _UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service or model {service!r:.120}")
        return _answer(status)

    async def _watch(self, message: bytes, context: Any) -> AsyncIterator[bytes]:
        service = await _service(message, context)
        told = None
        while not self._ended.is_set():
            status = self._status(service)
            if status != told:
                yield _answer(status)
                told = status
            try:
                await asyncio.wait_for(self._ended.wait(), POLL_SECONDS)
            except TimeoutError:
                continue
        if told != _NOT_SERVING:
            yield _answer(_NOT_SERVING)

    def _status(self, service: str) -> int:
        if service in self._whole:
            ready = self._repository.ready
        else:
            try:
                ready = self._repository.is_ready(service, None)
            except UnknownModel:
                return _UNKNOWN
        return _SERVING if ready and not self._draining else _NOT_SERVING


async def _service(message: bytes, context: Any) -> str:
    try:
        return str(health_pb2.HealthCheckRequest.FromString(message).service)
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message is not a HealthCheckRequest")
        raise


def _answer(status: int) -> bytes:
    return bytes(health_pb2.HealthCheckResponse(status=status).SerializeToString())
