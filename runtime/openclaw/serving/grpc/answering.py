"""ModelInfer and ModelStreamInfer: from the bytes of a request to the bytes of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from time import perf_counter

from openclaw.errors import OverBudget, Overloaded, RequestError
from openclaw.memory.accounting import Account, Claim, Level
from openclaw.serving.grpc import codec, wire
from openclaw.serving.grpc.codec import Envelope
from openclaw.serving.grpc.inference_pb2 import ModelInferResponse, ModelStreamInferResponse
from openclaw.serving.grpc.ports import Recorder, Repository, Served
from openclaw.serving.grpc.refusals import CANCELLED, refusal
from openclaw.serving.grpc.repeats import Repeats
from openclaw.serving.grpc.streams import Streams
from openclaw.serving.inference import InferRequest, InferResponse
from openclaw.serving.recording import OVER_BUDGET
from openclaw.serving.sharedmemory import Regions
from openclaw.serving.tensors import TEXT_COST
from openclaw.serving.watching import Caller, Watcher

_COUNTED = 64 * 1024
"""Bytes of a message from which on it is counted. It is there by then: gRPC reads it before anybody is asked."""
_STREAMED = ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER


class Inference:
    """Answers serialized requests for the models of a repository.

    Args:
        repository: the models.
        regions: shared memory that tensors may lie in; None where clients may not use it.
        account: grants large messages their memory; None: as much as is asked for.
        recorder: what counts the requests for a model's version.
        watcher: who is told of each request that ended.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        regions: Regions | None = None,
        account: Account | None = None,
        recorder: Callable[[Served], Recorder] | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self._repository = repository
        self._regions = regions
        self._account = account or Account()
        self._recorder = recorder
        self._watcher = watcher if watcher and watcher.wanted else None
        self._streams = Streams()
        self._repeats = Repeats()

    async def answer(self, message: bytes, caller: Caller) -> bytes:
        """Answers a ModelInferRequest with a ModelInferResponse; raises RequestError."""
        received = perf_counter()
        envelope = None
        repeated = self._repeats.read(message)
        if repeated is not None:
            model, version, request = repeated
        else:
            long = codec.is_long(message)
            envelope = await asyncio.to_thread(codec.parse, message) if long else codec.parse(message)
            model, version = envelope.model, envelope.version
        served = self._repository.find(model, version)
        recorder = None if self._recorder is None else self._recorder(served)
        if recorder is not None:
            recorder.begin()
        code, answer, room, shed = 500, b"", None, False
        try:
            if len(message) >= _COUNTED:
                room = self._room(message, served, typed=envelope is not None and long)
            if envelope is not None:
                request = await self._decoded(message, envelope, long=long)
            answer = await self._infer(served, request, caller)
            code = 200
        except asyncio.CancelledError:
            code = CANCELLED
            raise
        except RequestError as error:
            code = error.status
            shed = isinstance(error, OverBudget)
            raise
        finally:
            if room is not None:
                room.release()
            if recorder is not None:
                _record(recorder, code, received, shed=shed)
            if self._watcher is not None:
                sizes = {"bytes_in": len(message), "bytes_out": len(answer)}
                self._watcher.tell(served, caller, code=code, received=received, **sizes)
        return answer

    def stream(self, messages: AsyncIterator[bytes], caller: Caller) -> AsyncGenerator[bytes, None]:
        """Answers each ModelInferRequest with a ModelStreamInferResponse, in order; errors are answers.

        Raises:
            NotReady: the server stops; what was read is answered.
        """

        async def answered(message: bytes) -> bytes:
            try:
                answer = await self.answer(message, caller)
            except Exception as error:
                return _failed(message, error)
            return wire.join(b"", [answer], field=_STREAMED)

        return self._streams.in_order(messages, answered)

    def end_streams(self) -> None:
        """No stream takes a further request; what was taken is answered, then the stream ends."""
        self._streams.end()

    def _room(self, message: bytes, served: Served, *, typed: bool) -> Claim:
        """Counts a message; numbers that are not raw bytes become objects while it is read. Raises OverBudget."""
        size = len(message) * (1 + TEXT_COST * typed)
        return self._account.take(size, level=Level.OBJECTS, model=served.name)

    async def _decoded(self, message: bytes, envelope: Envelope, *, long: bool) -> InferRequest:
        if long:
            return await asyncio.to_thread(codec.decode, envelope, self._regions)
        request = codec.decode(envelope, self._regions)
        self._repeats.learn(message, model=envelope.model, version=envelope.version, request=request)
        return request

    async def _infer(self, served: Served, request: InferRequest, caller: Caller) -> bytes:
        response = served.infer(request, deadline=caller.deadline)
        if not isinstance(response, InferResponse):
            response = await response
        for tensor in response.outputs:
            if tensor.region is not None or (tensor.datatype == "BYTES" and tensor.array.size > codec.MANY):
                return await asyncio.to_thread(codec.encode, response)
        return codec.encode(response)


def _record(recorder: Recorder, code: int, received: float, *, shed: bool) -> None:
    if shed:
        recorder.refused(code, reason=OVER_BUDGET)
    elif code == Overloaded.status:
        recorder.refused(code)
    else:
        recorder.answered(code, received)


def _failed(message: bytes, error: Exception) -> bytes:
    try:
        identity = codec.parse(message).message.id
    except Exception:
        identity = ""
    answer = ModelStreamInferResponse(error_message=refusal(error).sentence)
    answer.infer_response.CopyFrom(ModelInferResponse(id=identity))
    return answer.SerializeToString()
