"""ModelInfer and ModelStreamInfer: from the bytes of a request to the bytes of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from time import perf_counter

from openclaw.serving.grpc import codec, wire
from openclaw.serving.grpc.codec import Envelope
from openclaw.serving.grpc.inference_pb2 import ModelInferResponse, ModelStreamInferResponse
from openclaw.serving.grpc.ports import Recorder, Repository, Served
from openclaw.serving.grpc.refusals import CANCELLED, refusal
from openclaw.serving.grpc.repeats import Repeats
from openclaw.serving.grpc.streams import Streams
from openclaw.serving.inference import InferRequest, InferResponse
from openclaw.serving.sharedmemory import Regions
from openclaw.serving.tracing import TraceContext

_STREAMED = ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER


class Inference:
    """Answers serialized requests for the models of a repository.

    Args:
        repository: the models.
        regions: shared memory that tensors may lie in; None where clients may not use it.
        recorder: what counts the requests for a model's version.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        regions: Regions | None = None,
        recorder: Callable[[Served], Recorder] | None = None,
    ) -> None:
        self._repository = repository
        self._regions = regions
        self._recorder = recorder
        self._streams = Streams()
        self._repeats = Repeats()

    async def answer(self, message: bytes, *, deadline: float | None, trace: TraceContext | None) -> bytes:
        """Answers a ModelInferRequest with a ModelInferResponse; raises RequestError."""
        received = perf_counter()
        repeated = self._repeats.read(message)
        if repeated is not None:
            model, version, request = repeated
            served = self._repository.find(model, version)
            coming = self._infer(served, request, deadline=deadline, trace=trace)
        else:
            long = codec.is_long(message)
            envelope = await asyncio.to_thread(codec.parse, message) if long else codec.parse(message)
            served = self._repository.find(envelope.model, envelope.version)
            coming = self._decoded(message, envelope, served=served, long=long, deadline=deadline, trace=trace)
        return await (coming if self._recorder is None else _recorded(coming, self._recorder(served), received))

    def stream(
        self, messages: AsyncIterator[bytes], *, deadline: float | None, trace: TraceContext | None
    ) -> AsyncGenerator[bytes, None]:
        """Answers each ModelInferRequest with a ModelStreamInferResponse, in order; errors are answers.

        Raises:
            NotReady: the server stops; what was read is answered.
        """

        async def answered(message: bytes) -> bytes:
            try:
                answer = await self.answer(message, deadline=deadline, trace=trace)
            except Exception as error:
                return _failed(message, error)
            return wire.join(b"", [answer], field=_STREAMED)

        return self._streams.in_order(messages, answered)

    def end_streams(self) -> None:
        """No stream takes a further request; what was taken is answered, then the stream ends."""
        self._streams.end()

    async def _decoded(
        self,
        message: bytes,
        envelope: Envelope,
        *,
        served: Served,
        long: bool,
        deadline: float | None,
        trace: TraceContext | None,
    ) -> bytes:
        if long:
            request = await asyncio.to_thread(codec.decode, envelope, self._regions)
        else:
            request = codec.decode(envelope, self._regions)
            self._repeats.learn(message, model=envelope.model, version=envelope.version, request=request)
        return await self._infer(served, request, deadline=deadline, trace=trace)

    async def _infer(
        self, served: Served, request: InferRequest, *, deadline: float | None, trace: TraceContext | None
    ) -> bytes:
        response = served.infer(request, deadline=deadline, trace=trace)
        if not isinstance(response, InferResponse):
            response = await response
        for tensor in response.outputs:
            if tensor.datatype == "BYTES" and tensor.array.size > codec.MANY:
                return await asyncio.to_thread(codec.encode, response)
        return codec.encode(response)


async def _recorded(answering: Awaitable[bytes], recorder: Recorder, received: float) -> bytes:
    recorder.begin()
    code = 200
    try:
        return await answering
    except asyncio.CancelledError:
        code = CANCELLED
        raise
    except Exception as error:
        code = getattr(error, "status", 500)
        raise
    finally:
        recorder.answered(code, received)


def _failed(message: bytes, error: Exception) -> bytes:
    try:
        identity = codec.parse(message).message.id
    except Exception:
        identity = ""
    answer = ModelStreamInferResponse(error_message=refusal(error).sentence)
    answer.infer_response.CopyFrom(ModelInferResponse(id=identity))
    return answer.SerializeToString()
