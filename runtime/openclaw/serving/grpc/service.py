"""The service's methods as grpc.aio calls them: bytes and a context in, bytes or a status out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import isawaitable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from openclaw.errors import InvalidRequest, Unsupported
from openclaw.serving.grpc import inference_pb2 as pb
from openclaw.serving.grpc.answering import Inference
from openclaw.serving.grpc.queries import Queries
from openclaw.serving.grpc.refusals import refusal
from openclaw.serving.tracing import TraceContext, parse

SERVICE = "inference.GRPCInferenceService"

_UNSUPPORTED = {
    "CudaSharedMemory": "CUDA shared memory is not supported; models run on the CPU",
    "TraceSetting": "trace settings are not supported; traces are configured by the server's OTEL_ variables",
    "LogSettings": "log settings are not supported; the log is configured where the server is started",
}

_Method = Callable[[bytes, Any], Awaitable[bytes]]


def handler(inference: Inference, queries: Queries) -> grpc.GenericRpcHandler:
    """The methods of ``inference.GRPCInferenceService``."""
    methods = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(_infer(inference)),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(_stream(inference)),
    }
    for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        if method.name not in methods:
            answer = getattr(queries, _snake(method.name), None) or _unsupported(method.name)
            methods[method.name] = grpc.unary_unary_rpc_method_handler(
                _unary(GetMessageClass(method.input_type), answer)
            )
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def _infer(inference: Inference) -> _Method:
    # No deserializer and no serializer: both are worth doing by hand.
    async def infer(message: bytes, context: Any) -> bytes:
        try:
            return await inference.answer(message, deadline=_deadline(context), trace=_trace(context))
        except Exception as error:
            return await _refuse(context, error)

    return infer


def _stream(inference: Inference) -> Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]:
    def stream(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        return inference.stream(messages, deadline=_deadline(context), trace=_trace(context))

    return stream


def _unary(request_class: type[Message], answer: Callable[[Any], Any]) -> _Method:
    async def unary(message: bytes, context: Any) -> bytes:
        try:
            found = answer(_parsed(request_class, message))
            result: Message = await found if isawaitable(found) else found
            return result.SerializeToString()
        except Exception as error:
            return await _refuse(context, error)

    return unary


def _parsed(request_class: type[Message], message: bytes) -> Message:
    try:
        return request_class.FromString(message)
    except DecodeError as error:
        name = request_class.DESCRIPTOR.name
        raise InvalidRequest(f"the message is not a {name}, or a string in it is not UTF-8") from error


def _unsupported(method: str) -> Callable[[Any], Any]:
    sentence = next(text for name, text in _UNSUPPORTED.items() if method.startswith(name))

    def refuse(_: object) -> Message:
        raise Unsupported(sentence)

    return refuse


def _deadline(context: Any) -> float | None:
    """The client's deadline as ``loop.time()``."""
    remaining = context.time_remaining()
    return None if remaining is None else asyncio.get_running_loop().time() + remaining


def _trace(context: Any) -> TraceContext | None:
    metadata = context.invocation_metadata()
    parents = [value for name, value in metadata if name == "traceparent"]
    if len(parents) != 1:
        return None
    states = [_bytes(value) for name, value in metadata if name == "tracestate"]
    return parse(_bytes(parents[0]), states)


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")


async def _refuse(context: Any, error: Exception) -> bytes:
    refused = refusal(error)
    await context.abort(refused.code, refused.sentence, refused.trailers)
    raise error


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
