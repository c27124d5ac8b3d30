"""An inference over REST: from a request's bytes to its answer's, counted, traced and logged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

from openclaw.errors import InvalidRequest, OverBudget, Overloaded, RequestError, RequestTooLarge
from openclaw.memory.accounting import Account, Claim, Level
from openclaw.serving.accesslog import AccessLog
from openclaw.serving.compression import WORTHWHILE, compress, decompress, negotiate
from openclaw.serving.http.messages import JSON, Answer, Content, Request, Soon, refusal
from openclaw.serving.inference import InferRequest, InferResponse
from openclaw.serving.places import BinaryAnswer
from openclaw.serving.protocol import (
    BINARY,
    HEADER_LENGTH,
    Encoded,
    decode_raw,
    decode_request,
    encode_response,
    json_length,
)
from openclaw.serving.recording import OVER_BUDGET, REST, RequestMetrics
from openclaw.serving.served import Served
from openclaw.serving.sharedmemory import Regions
from openclaw.serving.telemetry import Telemetry
from openclaw.serving.tensors import TEXT_COST
from openclaw.serving.tracing import Tracing, parse
from openclaw.serving.v1 import decode_predict, encode_predict
from openclaw.serving.watching import Caller, Watcher

_LONG = 64 * 1024
"""Bytes of JSON from which on it is read and written in another thread, so that others are not kept waiting."""

_HEADER_LENGTH = HEADER_LENGTH.lower().encode()
_TELLING = frozenset({_HEADER_LENGTH, b"content-encoding"})
"""Headers that say how a body is to be read."""


Encode = Callable[[InferResponse], Encoded]
Dialect = Callable[[Content, str | None, Served], tuple[InferRequest, Encode]]
"""How one protocol is read: from a body, the text of the header that says how long its JSON is, and whom it is for, to
the request and to what writes its answer."""


def open_inference(regions: Regions | None) -> Dialect:
    """The Open Inference Protocol; ``regions``: shared memory that tensors may lie in."""

    def read(body: Content, length: str | None, served: Served) -> tuple[InferRequest, Encode]:
        if length == "0":
            return decode_raw(body, served.signature), encode_response
        return decode_request(body, length, regions=regions), encode_response

    return read


def v1_predict(body: Content, length: str | None, served: Served) -> tuple[InferRequest, Encode]:
    """KServe's V1 protocol."""
    if length is not None:
        raise InvalidRequest(f"{HEADER_LENGTH} was sent; the V1 protocol knows JSON alone")
    request, columnar = decode_predict(body, served.signature)
    return request, partial(encode_predict, columnar=columnar)


class _Call(NamedTuple):
    request: Request
    served: Served
    dialect: Dialect
    requests: RequestMetrics


class _Shortly(Soon):
    """The reply of a shortcut: ``answer`` where it came before anybody could be waiting for it."""

    __slots__ = ("_dialect", "_exchange", "_request", "_served", "answer")

    def __init__(self, exchange: Exchange, request: Request, *, served: Served, dialect: Dialect) -> None:
        self.deliver = None
        self.answer: Answer | None = None
        self._exchange = exchange
        self._request = request
        self._served = served
        self._dialect = dialect

    def in_json(self, text: bytes) -> None:
        self._settle(_in_json(self._request, text))

    def in_binary(self, answer: BinaryAnswer) -> None:
        self._settle(_in_binary((answer.body,), answer.header_length))

    def pass_on(self) -> None:
        if self.deliver is not None:
            self.deliver(self._generally())

    async def _generally(self) -> Answer:
        answer = self._exchange.answer(self._request, self._served, self._dialect)
        return answer if isinstance(answer, Answer) else await answer

    def _settle(self, answer: Answer) -> None:
        self._exchange.answered_shortly(self._request, self._served)
        if self.deliver is None:
            self.answer = answer
        else:
            self.deliver(answer)


class Exchange:
    """Answers inference requests for any model.

    Args:
        telemetry: where requests are counted.
        max_bytes: of a body once it is unpacked.
        account: grants the memory that reading a long body takes; None: as much as is asked for.
        tracing: where spans go.
        log: where sampled requests are logged.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        max_bytes: int,
        account: Account | None = None,
        tracing: Tracing | None = None,
        log: AccessLog | None = None,
    ) -> None:
        self._requests = telemetry.metrics.requests
        self._max_bytes = max_bytes
        self._account = account or Account()
        self._watcher = Watcher(REST, tracing=tracing, log=log)

    def answer_shortly(self, request: Request, served: Served, dialect: Dialect) -> Answer | Soon | None:
        """Answers a plain request of the Open Inference Protocol to a quick model; None where ``answer`` is to."""
        shortcut = served.shortcut
        if shortcut is None or self._watcher.wanted:
            return None
        length = None
        for name, value in request.headers:
            if name in _TELLING:
                if name != _HEADER_LENGTH or length is not None:
                    return None
                length = value
        reply = _Shortly(self, request, served=served, dialect=dialect)
        if length is None:
            taken = shortcut.take_json(request.body, reply)
        else:
            taken = shortcut.take_binary(request.body, length, reply)
        return (reply.answer or reply) if taken else None

    def answered_shortly(self, request: Request, served: Served) -> None:
        """Counts a request that was answered within one turn of the event loop."""
        self._requests(served.name, served.version, REST).answered_at_once(200, request.received)

    def answer(self, request: Request, served: Served, dialect: Dialect) -> Answer | Awaitable[Answer]:
        """Answers at once, or later where the model or the body takes its time."""
        call = _Call(request, served, dialect, self._requests(served.name, served.version, REST))
        call.requests.begin()
        try:
            length = _header_length(request)
            coding = request.header(b"content-encoding")
            if coding is not None or _is_long(request.body, length):
                return self._answer_long(call, length)
            decoded, encode = dialect(request.body, length, served)
            response = served.infer(decoded)
            if not isinstance(response, InferResponse):
                return self._answer_later(call, response, encode)
            answer = _written(request, response, encode)
        except BaseException as error:
            return self._failed(call, error)
        if length is not None and served.shortcut is not None:
            served.shortcut.learn(bytes(request.body[: json_length(length, len(request.body))]), decoded)
        self._ended(call, answer)
        return answer

    async def _answer_later(self, call: _Call, coming: Awaitable[InferResponse], encode: Encode) -> Answer:
        try:
            answer = await _write(call.request, await coming, encode)
        except BaseException as error:
            return self._failed(call, error)
        self._ended(call, answer)
        return answer

    async def _answer_long(self, call: _Call, length: str | None) -> Answer:
        try:
            room = self._account.take(0, level=Level.OBJECTS, model=call.served.name)
            with room, call.served.reading():
                decoded, encode = await asyncio.to_thread(self._decode, call, length, room=room)
                response = call.served.infer(decoded)
                if not isinstance(response, InferResponse):
                    response = await response
                answer = await _write(call.request, response, encode)
        except BaseException as error:
            return self._failed(call, error)
        self._ended(call, answer)
        return answer

    def _decode(self, call: _Call, length: str | None, *, room: Claim) -> tuple[InferRequest, Encode]:
        """Unpacks and reads a body, in as much memory as ``room`` can get."""
        body, unpacked = call.request.body, 0
        if coding := call.request.header(b"content-encoding"):
            body = decompress(body, coding.decode("latin-1"), max_bytes=self._max_bytes, growing=room.resize)
            unpacked = len(body)
        text = len(body) if length is None else json_length(length, len(body))
        budget, needed = self._account.budget, unpacked + TEXT_COST * text
        if budget is not None and needed > budget:
            sentence = f"reading {text:,} bytes of JSON takes {needed:,}; server.memoryBudgetBytes is {budget:,}"
            raise RequestTooLarge(sentence)
        room.resize(needed)
        decoded, encode = call.dialect(body, length, call.served)
        # The objects that the text became are gone; what is left is arrays.
        room.resize(unpacked + text)
        return decoded, encode

    def _failed(self, call: _Call, error: BaseException) -> Answer:
        """The answer to what went wrong; what is nobody's answer is counted and raised on."""
        if isinstance(error, RequestError):
            answer = refused(error)
            if isinstance(error, OverBudget):
                self._ended(call, answer, shed=True, reason=OVER_BUDGET)
            else:
                self._ended(call, answer, shed=isinstance(error, Overloaded))
            return answer
        call.requests.answered(500, call.request.received)
        raise error

    def _ended(self, call: _Call, answer: Answer, *, shed: bool = False, reason: str | None = None) -> None:
        if shed:
            call.requests.refused(answer.status, reason=reason)
        else:
            call.requests.answered(answer.status, call.request.received)
        if self._watcher.wanted:
            self._watcher.tell(
                call.served,
                _caller(call.request),
                code=answer.status,
                received=call.request.received,
                bytes_in=len(call.request.body),
                bytes_out=sum(len(part) for part in answer.parts),
            )


def refused(error: RequestError) -> Answer:
    """The protocol's error document for an error."""
    return refusal(error.status, str(error), retry_after=getattr(error, "retry_after", None))


async def _write(request: Request, response: InferResponse, encode: Encode) -> Answer:
    in_text = sum(tensor.array.nbytes for tensor in response.outputs if not tensor.binary)
    if in_text >= _LONG or any(tensor.region for tensor in response.outputs):
        return await asyncio.to_thread(_written, request, response, encode)
    return _written(request, response, encode)


def _written(request: Request, response: InferResponse, encode: Encode) -> Answer:
    encoded = encode(response)
    if encoded.header_length is not None:
        return _in_binary(encoded.parts, encoded.header_length)
    (text,) = encoded.parts
    return _in_json(request, text)


def _in_binary(parts: Sequence[bytes | memoryview], header_length: int) -> Answer:
    length = (HEADER_LENGTH.encode(), b"%d" % header_length)
    return Answer(200, parts, content_type=BINARY.encode(), headers=(length,))


def _in_json(request: Request, text: bytes | memoryview) -> Answer:
    """An answer in JSON; a long one packed for who prefers it."""
    if len(text) > WORTHWHILE and (accepted := request.header(b"accept-encoding")):
        coding = negotiate(accepted.decode("latin-1"), content_type=JSON.decode(), size=len(text))
        if coding:
            headers = ((b"Content-Encoding", coding.encode()), (b"Vary", b"Accept-Encoding"))
            return Answer(200, (compress((text,), coding),), headers=headers)
    return Answer(200, (text,))


def _is_long(body: Content, length: str | None) -> bool:
    """Whether there is so much JSON that reading it would keep others waiting."""
    return len(body) >= _LONG and (length is None or json_length(length, len(body)) >= _LONG)


def _header_length(request: Request) -> str | None:
    value = request.header(_HEADER_LENGTH)
    return None if value is None else value.decode("latin-1")


def _caller(request: Request) -> Caller:
    states = [value for name, value in request.headers if name == b"tracestate"]
    return Caller(
        request.path,
        trace=parse(request.header(b"traceparent"), states),
        request_id=(request.header(b"x-request-id") or b"").decode("latin-1"),
        method=request.method,
    )
