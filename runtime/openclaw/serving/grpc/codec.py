"""ModelInferRequest to :class:`InferRequest` and :class:`InferResponse` to ModelInferResponse, as pure functions.

Tensors come in ``raw_input_contents`` (laid out as in REST's binary extension) or in their own typed ``contents``,
never both in one request; FP16 and BF16 only raw. Answers are always raw. Nothing is allocated by a shape before
the data is known to be there, and every refusal is a :class:`RequestError` that names field, value and what is
allowed.

Source: https://github.com/open-inference/open-inference-protocol, and Triton's extension_shared_memory.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from google.protobuf.message import DecodeError

from openclaw.errors import InvalidRequest, RequestTooLarge
from openclaw.graph.signature import NUMPY_OF
from openclaw.serving.grpc import contents, wire
from openclaw.serving.grpc.inference_pb2 import InferParameter, ModelInferRequest, ModelInferResponse
from openclaw.serving.inference import (
    NO_PARAMETERS,
    InferRequest,
    InferResponse,
    Parameter,
    Parameters,
    RequestedOutput,
    Tensor,
)
from openclaw.serving.sharedmemory import Regions, Window
from openclaw.serving.shown import shown
from openclaw.serving.tensors import encode_binary

_RAW_INPUTS = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_RAW_OUTPUTS = ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_SPLIT_ABOVE = 16 * 1024
"""Bytes of a message from which on cutting its tensors out costs less than the parser's two copies of them."""
LONG = 64 * 1024
"""Bytes that take milliseconds where each element becomes an object."""
MANY = 10_000
"""Strings that take milliseconds to encode."""
_MAX_SIZE = 2**31 - 1
_MAX_RANK = 64
_LONGEST_ANSWER = 2**31 - 2**20
"""Bytes of tensors: no protocol buffer may have 2 GiB, and there is more in it than tensors."""

_REGION, _OFFSET, _SIZE = "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"
_MEMORY = frozenset({_REGION, _OFFSET, _SIZE})


class Envelope(NamedTuple):
    """A parsed ModelInferRequest of whose tensors nothing was read yet.

    Attributes:
        model: which model is asked.
        version: which version of it; None: the server's choice.
        message: all but the raw tensors, where those were cut out.
        raw: the raw tensors.
    """

    model: str
    version: str | None
    message: ModelInferRequest
    raw: Sequence[bytes | memoryview]


def parse(message: bytes) -> Envelope:
    """Reads a serialized ModelInferRequest; raises InvalidRequest where it is not one."""
    raw: Sequence[bytes | memoryview] | None = None
    if len(message) > _SPLIT_ABOVE and (cut := wire.split(message, _RAW_INPUTS)):
        message, raw = cut
    try:
        parsed = ModelInferRequest.FromString(message)
    except DecodeError as error:
        raise InvalidRequest("the message is not a ModelInferRequest, or a string in it is not UTF-8") from error
    return Envelope(
        parsed.model_name, parsed.model_version or None, parsed, list(parsed.raw_input_contents) if raw is None else raw
    )


def decode(envelope: Envelope, regions: Regions | None = None) -> InferRequest:
    """The request in an envelope; arrays of numbers may go on using its memory.

    Args:
        envelope: what :func:`parse` gave.
        regions: shared memory that tensors may lie in; None where it is not allowed.

    Raises:
        RequestError: it is not consistent in itself.
    """
    message = envelope.message
    if not message.inputs:
        raise InvalidRequest("inputs is empty; at least one tensor is needed")
    tensors: dict[str, Tensor] = {}
    raw = iter(envelope.raw) if envelope.raw else None
    for given in message.inputs:
        tensor = _tensor(given, raw, regions=regions)
        if tensor.name in tensors:
            raise InvalidRequest(f"input {shown(tensor.name)} is given twice")
        tensors[tensor.name] = tensor
    if raw is not None and (extra := sum(1 for _ in raw)):
        raise InvalidRequest(
            f"raw_input_contents has {len(envelope.raw)} tensors, {extra} more than there are inputs for"
        )
    return InferRequest(
        inputs=tuple(tensors.values()),
        outputs=_outputs(message, regions) if message.outputs else None,
        id=message.id or None,
        binary_output=True,
        parameters=_parameters(message.parameters, "the request") if message.parameters else NO_PARAMETERS,
    )


def encode(response: InferResponse) -> bytes:
    """A serialized ModelInferResponse; outputs that have a region are written there.

    Raises:
        InvalidRequest: an output is larger than the shared memory given for it.
        RequestTooLarge: the answer is larger than a message may be.
    """
    described = []
    size, plain = 0, not response.parameters
    for tensor in response.outputs:
        described.append((tensor.name, tensor.datatype, tensor.array.shape))
        if tensor.region is None:
            size += tensor.array.nbytes
        plain = plain and tensor.region is None and not tensor.parameters
    if size > _LONGEST_ANSWER:
        raise RequestTooLarge(
            f"the answer has {size} bytes; a gRPC message holds {_LONGEST_ANSWER}: ask for fewer rows or outputs"
        )
    if plain:
        head = _plain_head(response.model_name, response.model_version, tuple(described))
    else:
        head = _head(response).SerializeToString()
    if response.id:
        # Fields may come in any order, so the part before it can be the same for all requests.
        head += ModelInferResponse(id=response.id).SerializeToString()
    return wire.join(head, [_sent(tensor) for tensor in response.outputs], field=_RAW_OUTPUTS)


def is_long(message: bytes) -> bool:
    """Whether reading a message may take milliseconds: not where raw numbers, which are left in place, make it up."""
    if len(message) <= LONG:
        return False
    cut = wire.split(message, _RAW_INPUTS)
    return cut is None or len(cut[0]) > LONG or b"BYTES" in cut[0]


def _tensor(
    given: ModelInferRequest.InferInputTensor,
    raw: Iterator[bytes | memoryview] | None,
    *,
    regions: Regions | None,
) -> Tensor:
    name, datatype = given.name, given.datatype
    if not name:
        raise InvalidRequest("the name of an input is empty; a name of the model's inputs is needed")
    where = f"input {shown(name)}"
    if datatype not in NUMPY_OF:
        raise InvalidRequest(f"{where}: datatype is {shown(datatype)}; allowed: {', '.join(NUMPY_OF)}")
    shape = _shape(given, where)
    parameters = _parameters(given.parameters, where) if given.parameters else NO_PARAMETERS
    window = _window(parameters, regions, where=where)
    if not (window or raw):
        array = contents.typed(given.contents, datatype, shape, where=where)
        return Tensor(name, datatype, array, parameters=parameters)
    if given.HasField("contents"):
        other = "raw_input_contents" if raw else _REGION
        raise InvalidRequest(f"{where} has contents beside {other}; give a request's tensors in one way")
    if window:
        array = contents.raw(window.read(), datatype, shape, where=where, field=_SIZE)
        return Tensor(name, datatype, array, parameters=_without_memory(parameters))
    data = next(raw or iter(()), None)
    if data is None:
        raise InvalidRequest(f"{where} has no raw_input_contents, while inputs before it have")
    array = contents.raw(memoryview(data), datatype, shape, where=where, field="raw_input_contents")
    return Tensor(name, datatype, array, True, parameters)


def _shape(given: ModelInferRequest.InferInputTensor, where: str) -> tuple[int, ...]:
    shape = tuple(given.shape)
    if len(shape) > _MAX_RANK:
        raise InvalidRequest(f"{where}: shape has {len(shape)} dimensions; at most {_MAX_RANK} are allowed")
    for size in shape:
        if not 0 <= size <= _MAX_SIZE:
            raise InvalidRequest(f"{where}: shape {list(shape)[:16]} holds {size}; allowed: 0 to {_MAX_SIZE}")
    return shape


def _outputs(parsed: ModelInferRequest, regions: Regions | None) -> tuple[RequestedOutput, ...]:
    outputs: dict[str, RequestedOutput] = {}
    for given in parsed.outputs:
        where = f"output {shown(given.name)}"
        if given.name in outputs:
            raise InvalidRequest(f"{where} is asked for twice")
        parameters = _parameters(given.parameters, where)
        if parameters.get("classification"):
            raise InvalidRequest(f"{where}: the classification extension is not supported")
        outputs[given.name] = RequestedOutput(given.name, True, _window(parameters, regions, where=where))
    return tuple(outputs.values())


def _parameters(given: Mapping[str, InferParameter], where: str) -> Parameters:
    parameters: dict[str, Parameter] = {}
    for name, value in given.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is None:
            raise InvalidRequest(f"{where}: parameter {shown(name)} has no value")
        parameters[name] = getattr(value, kind)
    return parameters


def _window(parameters: Parameters, regions: Regions | None, *, where: str) -> Window | None:
    if parameters.keys().isdisjoint(_MEMORY):
        return None
    if regions is None:
        raise InvalidRequest(f"{where}: shared memory is not allowed by this server; send the tensor")
    return regions.window(
        parameters.get(_REGION), offset=parameters.get(_OFFSET), size=parameters.get(_SIZE), where=where
    )


def _without_memory(parameters: Parameters) -> Parameters:
    return {name: value for name, value in parameters.items() if name not in _MEMORY}


@lru_cache(maxsize=256)
def _plain_head(model: str, version: str, outputs: tuple[tuple[str, str, tuple[int, ...]], ...]) -> bytes:
    """What is before the tensors in nearly every answer: the same for each model and shape."""
    head = ModelInferResponse(model_name=model, model_version=version)
    for name, datatype, shape in outputs:
        head.outputs.add(name=name, datatype=datatype, shape=shape)
    return head.SerializeToString()


def _head(response: InferResponse) -> ModelInferResponse:
    head = ModelInferResponse(model_name=response.model_name, model_version=response.model_version)
    _put(response.parameters, head.parameters)
    for tensor in response.outputs:
        shape = tensor.array.shape
        output = head.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
        _put(tensor.parameters, output.parameters)
        if tensor.region is not None:
            _put(_placed(tensor, tensor.region), output.parameters)
    return head


def _put(parameters: Parameters, target: Mapping[str, InferParameter]) -> None:
    for name, value in parameters.items():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, int):
            setattr(target[name], "int64_param" if value < 2**63 else "uint64_param", value)
        elif isinstance(value, float):
            target[name].double_param = value
        else:
            target[name].string_param = value


def _placed(tensor: Tensor, window: Window) -> Parameters:
    """Writes a tensor to its shared memory; gives the parameters that say where it is."""
    data = encode_binary(tensor.array, tensor.datatype)
    window.write(data, where=f"output {shown(tensor.name)}")
    return {_REGION: window.region.status["name"], _OFFSET: window.offset, _SIZE: len(data)}


def _sent(tensor: Tensor) -> bytes | memoryview:
    # Clients count raw tensors by outputs, so one that is elsewhere keeps its place.
    return b"" if tensor.region is not None else encode_binary(tensor.array, tensor.datatype)
