"""ModelInfer and ModelStreamInfer: from the bytes of a request to the bytes of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from time import perf_counter

from openclaw.errors import Overloaded, RequestError
from openclaw.serving.grpc import codec, wire
from openclaw.serving.grpc.codec import Envelope
from openclaw.serving.grpc.inference_pb2 import ModelInferResponse, ModelStreamInferResponse
from openclaw.serving.grpc.ports import Recorder, Repository, Served
from openclaw.serving.grpc.refusals import CANCELLED, refusal
from openclaw.serving.grpc.repeats import Repeats
from openclaw.serving.grpc.streams import Streams
from openclaw.serving.inference import InferRequest, InferResponse
from openclaw.serving.sharedmemory import Regions
from openclaw.serving.watching import Caller, Watcher

_STREAMED = ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER


class Inference:
    """Answers serialized requests for the models of a repository.

    Args:
        repository: the models.
        regions: shared memory that tensors may lie in; None where clients may not use it.
        recorder: what counts the requests for a model's version.
        watcher: who is told of each request that ended.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        regions: Regions | None = None,
        recorder: Callable[[Served], Recorder] | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self._repository = repository
        self._regions = regions
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
        code, answer = 500, b""
        try:
            if envelope is not None:
                request = await self._decoded(message, envelope, long=long)
            answer = await self._infer(served, request, caller)
            code = 200
        except asyncio.CancelledError:
            code = CANCELLED
            raise
        except RequestError as error:
            code = error.status
            raise
        finally:
            if recorder is not None:
                _record(recorder, code, received)
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

    async def _decoded(self, message: bytes, envelope: Envelope, *, long: bool) -> InferRequest:
        if long:
            return await asyncio.to_thread(codec.decode, envelope, self._regions)
        request = codec.decode(envelope, self._regions)
        self._repeats.learn(message, model=envelope.model, version=envelope.version, request=request)
        return request

    async def _infer(self, served: Served, request: InferRequest, caller: Caller) -> bytes:
        response = served.infer(request, deadline=caller.deadline, trace=caller.trace)
        if not isinstance(response, InferResponse):
            response = await response
        for tensor in response.outputs:
            if tensor.region is not None or (tensor.datatype == "BYTES" and tensor.array.size > codec.MANY):
                return await asyncio.to_thread(codec.encode, response)
        return codec.encode(response)


def _record(recorder: Recorder, code: int, received: float) -> None:
    if code == Overloaded.status:
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
