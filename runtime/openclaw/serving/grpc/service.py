"""The service's methods as grpc.aio calls them: bytes and a context in, bytes or a status out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from inspect import isawaitable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from openclaw.errors import InvalidRequest, RequestError, Unsupported
from openclaw.serving.grpc import inference_pb2 as pb
from openclaw.serving.grpc.answering import Inference
from openclaw.serving.grpc.queries import Queries
from openclaw.serving.grpc.refusals import refusal
from openclaw.serving.grpc.traffic import Traffic
from openclaw.serving.tracing import parse
from openclaw.serving.watching import Caller

SERVICE = "inference.GRPCInferenceService"
_INFER, _STREAM = f"/{SERVICE}/ModelInfer", f"/{SERVICE}/ModelStreamInfer"

_UNSUPPORTED = {
    "CudaSharedMemory": "CUDA shared memory is not supported; models run on the CPU",
    "TraceSetting": "trace settings are not supported; traces are configured by the server's OTEL_ variables",
    "LogSettings": "log settings are not supported; the log is configured where the server is started",
}

_Context = grpc.aio.ServicerContext[bytes, bytes]
_Method = Callable[[bytes, _Context], Awaitable[bytes]]


def handler(inference: Inference, queries: Queries, traffic: Traffic) -> grpc.GenericRpcHandler:
    """The methods of ``inference.GRPCInferenceService``."""
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(_infer(inference, traffic)),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(_stream(inference)),
    }
    for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        if method.name not in methods:
            answer = getattr(queries, _snake(method.name), None) or _unsupported(method.name)
            methods[method.name] = grpc.unary_unary_rpc_method_handler(
                _unary(GetMessageClass(method.input_type), answer)
            )
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def _infer(inference: Inference, traffic: Traffic) -> _Method:
    # No deserializer and no serializer: both are worth doing by hand.
    async def infer(message: bytes, context: _Context) -> bytes:
        try:
            with traffic:
                return await inference.answer(message, _caller(context, _INFER))
        except Exception as error:
            return await _refuse(context, error)

    return infer


def _stream(inference: Inference) -> Callable[[AsyncIterator[bytes], _Context], AsyncIterator[bytes]]:
    async def stream(messages: AsyncIterator[bytes], context: _Context) -> AsyncIterator[bytes]:
        answers = inference.stream(messages, _caller(context, _STREAM))
        # What is under way for a client that went away ends with its stream.
        async with aclosing(answers):
            try:
                async for answer in answers:
                    yield answer
            except RequestError as error:
                await _refuse(context, error)

    return stream


def _unary(request_class: type[Message], answer: Callable[[Any], Any]) -> _Method:
    async def unary(message: bytes, context: _Context) -> bytes:
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


def _caller(context: _Context, path: str) -> Caller:
    remaining = context.time_remaining()
    deadline = None if remaining is None else asyncio.get_running_loop().time() + remaining
    parents: list[bytes] = []
    states: list[bytes] = []
    request_id = ""
    for name, value in context.invocation_metadata() or ():
        if name == "traceparent":
            parents.append(_bytes(value))
        elif name == "tracestate":
            states.append(_bytes(value))
        elif name == "x-request-id":
            request_id = str(value)
    trace = parse(parents[0], states) if len(parents) == 1 else None
    return Caller(path, deadline, trace, request_id)


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")


async def _refuse(context: _Context, error: Exception) -> bytes:
    refused = refusal(error)
    await context.abort(refused.code, refused.sentence, refused.trailers)
    raise error


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
