"""The Open Inference Protocol (v2) over REST, as functions from bytes to tensors and back.

JSON, and the binary tensor data extension: a JSON header of ``Inference-Header-Content-Length`` bytes,
then the raw tensors in order, little-endian, row-major. ``BYTES`` elements are UTF-8 strings, in binary
each behind its length in four bytes. FP16 and BF16 travel in binary and as JSON numbers. With regions,
tensors may lie in shared memory instead: they are read while decoding, and written while encoding.

Sources: https://github.com/open-inference/open-inference-protocol (required API) and Triton's
extension_binary_data.md, extension_parameters.md and extension_shared_memory.md. Every refusal is an
:class:`InvalidRequest` that names field, value and what is allowed; nothing is allocated by a shape before
the data is known to be there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from openclaw.errors import InvalidRequest
from openclaw.graph.signature import NUMPY_OF, Signature
from openclaw.serving.binding import bind, listed
from openclaw.serving.inference import (
    NO_PARAMETERS,
    InferRequest,
    InferResponse,
    Parameters,
    RequestedOutput,
    Tensor,
)
from openclaw.serving.sharedmemory import Regions, Window
from openclaw.serving.shown import shown
from openclaw.serving.tensors import decode_binary, decode_json, decode_plain, encode_binary, encode_json

__all__ = [
    "BINARY",
    "HEADER_LENGTH",
    "JSON",
    "Encoded",
    "InferRequest",
    "InferResponse",
    "RequestedOutput",
    "Tensor",
    "bind",
    "decode_request",
    "encode_request",
    "encode_response",
    "json_length",
]

HEADER_LENGTH = "Inference-Header-Content-Length"
JSON = "application/json"
BINARY = "application/octet-stream"

_MAX_SIZE = 2**31 - 1
_MAX_RANK = 64
_PLAIN_REQUEST = frozenset({"id", "inputs"})
_PLAIN_FIELDS = frozenset({"name", "datatype", "shape", "data"})
_SCALARS = frozenset({str, int, float, bool})
# What says how tensors travel: it ends here, all other parameters are handed on.
_TRANSPORT = frozenset(
    {"binary_data", "binary_data_output", "binary_data_size"}
    | {"shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"}
)


class Encoded(NamedTuple):
    """A body in pieces with its content type; ``header_length`` is set when binary tensors follow the JSON."""

    parts: tuple[bytes | memoryview, ...]
    content_type: str
    header_length: int | None = None

    @property
    def body(self) -> bytes:
        """The pieces as one."""
        return b"".join(self.parts)


def decode_request(
    body: bytes | bytearray | memoryview, header_length: str | None = None, *, regions: Regions | None = None
) -> InferRequest:
    """Decodes an inference request.

    Args:
        body: the whole body.
        header_length: the text of the ``Inference-Header-Content-Length`` header, if it was sent.
        regions: where tensors in shared memory are found; without, they are refused.

    Raises:
        InvalidRequest: the body is not a request of the protocol.
        RequestTooLarge: a tensor in shared memory is larger than a request may be.
    """
    document, rest = _split(body, header_length)
    if plain := _plain_request(document):
        return plain
    parameters = _object(document, "parameters", "the request")
    items = document.get("inputs")
    if not isinstance(items, list) or not items:
        raise InvalidRequest(f"inputs is {shown(items)}; a non-empty list of tensors is needed")
    tensors: list[Tensor] = []
    for index, item in enumerate(items):
        tensor, rest = _decode_tensor(item, f"inputs[{index}]", rest=rest, regions=regions)
        tensors.append(tensor)
    _check_once([tensor.name for tensor in tensors])
    if len(rest):
        raise InvalidRequest(
            f"{len(rest)} bytes are left after the last binary tensor; binary_data_size counts them all"
        )
    binary_output = _flag(parameters, "binary_data_output", default=False)
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise InvalidRequest(f"id is {shown(identity)}; a string is needed")
    outputs = _requested(document, binary_output, regions=regions)
    return InferRequest(tuple(tensors), outputs, identity, binary_output, _kept(parameters, "the request"))


def decode_raw(body: bytes | bytearray | memoryview, signature: Signature) -> InferRequest:
    """Decodes a request without JSON: the bytes of the only input, one row of it where the rows are free.

    All outputs are answered as bytes: extension_binary_data.md, "raw binary request".

    Raises:
        InvalidRequest: the model has several inputs, or the bytes are not those of one.
    """
    where = f"{HEADER_LENGTH} is 0"
    if len(signature.inputs) != 1:
        raise InvalidRequest(f"{where}, which takes a model with one input; this one takes {listed(signature.inputs)}")
    (spec,) = signature.inputs
    if not body:
        raise InvalidRequest(f"{where}, and the body is empty; the bytes of {spec} are needed")
    if spec.datatype == "BYTES":
        shape: tuple[int, ...] = (1,) * len(spec.shape)
    else:
        shape = _raw_shape(len(body) // spec.dtype.itemsize, spec.shape, where=f"{where}, and the input is {spec}")
    array = decode_binary(memoryview(body), spec.datatype, shape, where=f"input {shown(spec.name)}")
    return InferRequest((Tensor(spec.name, spec.datatype, array, binary=True),), binary_output=True)


def _raw_shape(count: int, shape: tuple[int, ...], *, where: str) -> tuple[int, ...]:
    """The shape of so many values: the first free dimension is rows, and 1 where another one is free."""
    free = [axis for axis, size in enumerate(shape) if size == -1]
    if len(free) > 2 or (len(free) == 2 and free[0] != 0):
        raise InvalidRequest(f"{where}: its shape cannot be told from its size; send it with a JSON header")
    fixed = math.prod(size for size in shape if size != -1)
    told = list(shape)
    if len(free) == 2:
        told[0] = 1
    if free:
        told[free[-1]] = count // fixed if fixed else 0
    return tuple(told)


def encode_response(response: InferResponse) -> Encoded:
    """Encodes a response; JSON alone unless an output is binary.

    JSON has no NaN and no infinity: they become ``null``. Ask for binary outputs where they matter. Large binary
    outputs are not copied: they must not change until the parts are sent.

    Raises:
        InvalidRequest: an output is larger than its window of shared memory.
    """
    head: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.parameters:
        head["parameters"] = dict(response.parameters)
    return _encode(head, response.id, {"outputs": response.outputs})


def encode_request(request: InferRequest) -> Encoded:
    """Encodes a request: what a client of this protocol sends."""
    head: dict[str, Any] = {}
    parameters = dict(request.parameters)
    if request.binary_output:
        parameters["binary_data_output"] = True
    if parameters:
        head["parameters"] = parameters
    if request.outputs is not None:
        head["outputs"] = [
            {
                "name": output.name,
                "parameters": _window_parameters(output.region) if output.region else {"binary_data": output.binary},
            }
            for output in request.outputs
        ]
    return _encode(head, request.id, {"inputs": request.inputs})


def json_length(header_length: str, size: int) -> int:
    """The bytes of JSON at the beginning of a body of ``size`` bytes, from the text of its header.

    Raises:
        InvalidRequest: the header is not the length of a part of the body.
    """
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 20):
        raise InvalidRequest(f"{HEADER_LENGTH} is {header_length[:40]!r}; a number of bytes is needed")
    length = int(header_length)
    if length > size:
        raise InvalidRequest(f"{HEADER_LENGTH} is {length}; the body has only {size} bytes")
    return length


def _split(body: bytes | bytearray | memoryview, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    length = len(body) if header_length is None else json_length(header_length, len(body))
    view = memoryview(body)
    try:
        document = orjson.loads(view[:length])
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body is {shown(document)}; an object with inputs is needed")
    return document, view[length:]


def _plain_request(document: dict[str, Any]) -> InferRequest | None:
    """A request as nearly all are, for one tensor in JSON; None where a closer look is needed."""
    if len(document) > 2 or not document.keys() <= _PLAIN_REQUEST:
        return None
    items, identity = document.get("inputs"), document.get("id")
    if type(items) is not list or len(items) != 1 or (identity is not None and type(identity) is not str):
        return None
    tensor = _plain_tensor(items[0])
    return None if tensor is None else InferRequest((tensor,), None, identity)


def _plain_tensor(item: object) -> Tensor | None:
    """A tensor of four usual fields with a flat list of numbers; None where a closer look is needed."""
    if type(item) is not dict or len(item) != len(_PLAIN_FIELDS) or not item.keys() >= _PLAIN_FIELDS:
        return None
    name, datatype, shape, data = item["name"], item["datatype"], item["shape"], item["data"]
    if type(name) is not str or not name or type(datatype) is not str or type(shape) is not list:
        return None
    array = decode_plain(data, datatype, shape) if type(data) is list else None
    return None if array is None else Tensor(name, datatype, array)


def _decode_tensor(item: object, where: str, *, rest: memoryview, regions: Regions | None) -> tuple[Tensor, memoryview]:
    if not isinstance(item, dict):
        raise InvalidRequest(f"{where} is {shown(item)}; an object with name, datatype, shape and data is needed")
    name = item.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"{where}.name is {shown(name)}; a non-empty string is needed")
    where = f"input {shown(name)}"
    datatype = item.get("datatype")
    if not isinstance(datatype, str) or datatype not in NUMPY_OF:
        raise InvalidRequest(f"{where}: datatype is {shown(datatype)}; allowed: {', '.join(NUMPY_OF)}")
    shape = _shape(item.get("shape"), where)
    parameters = _object(item, "parameters", where)
    kept = _kept(parameters, where)
    if "shared_memory_region" in parameters:
        _check_alone(item, "shared_memory_region", where)
        data = _window(parameters, where, regions).read()
        return Tensor(name, datatype, decode_binary(data, datatype, shape, where=where), False, kept), rest
    if "binary_data_size" not in parameters:
        if "data" not in item:
            raise InvalidRequest(f"{where} has neither data nor parameters.binary_data_size")
        return Tensor(name, datatype, decode_json(item["data"], datatype, shape, where=where), False, kept), rest
    _check_alone(item, "binary_data_size", where)
    size = parameters["binary_data_size"]
    if not _is_count(size):
        raise InvalidRequest(f"{where}: binary_data_size is {shown(size)}; a number of bytes is needed")
    if size > len(rest):
        raise InvalidRequest(f"{where}: binary_data_size is {size}, but only {len(rest)} bytes are left in the body")
    array = decode_binary(rest[:size], datatype, shape, where=where)
    return Tensor(name, datatype, array, True, kept), rest[size:]


def _check_alone(item: Mapping[str, Any], parameter: str, where: str) -> None:
    if "data" in item:
        raise InvalidRequest(f"{where} has both data and parameters.{parameter}; give one")


def _check_once(names: Sequence[str]) -> None:
    if len(names) > 1 and len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise InvalidRequest(f"input {shown(twice)} is given twice")


def _window(parameters: Mapping[str, Any], where: str, regions: Regions | None) -> Window:
    """The shared memory that a tensor's parameters name."""
    region = parameters["shared_memory_region"]
    if regions is None:
        raise InvalidRequest(f"{where}: shared_memory_region is {shown(region)}; this server allows no shared memory")
    if parameters.get("binary_data_size") is not None or parameters.get("binary_data") is True:
        raise InvalidRequest(f"{where} is given both as binary data and in shared memory; choose one")
    offset, size = parameters.get("shared_memory_offset"), parameters.get("shared_memory_byte_size")
    return regions.window(region, offset=offset, size=size, where=where)


def _window_parameters(window: Window) -> dict[str, str | int]:
    return {
        "shared_memory_region": window.region.status["name"],
        "shared_memory_offset": window.offset,
        "shared_memory_byte_size": window.size,
    }


def _kept(parameters: Mapping[str, Any], where: str) -> Parameters:
    """The parameters that are not about transport; all must be strings, numbers or booleans."""
    if not parameters:
        return NO_PARAMETERS
    if not _SCALARS.issuperset(map(type, parameters.values())):
        key = next(key for key, value in parameters.items() if type(value) not in _SCALARS)
        value = shown(parameters[key], absent="null")
        raise InvalidRequest(f"{where}: parameters.{key:.80} is {value}; a string, number or boolean is needed")
    if _TRANSPORT.issuperset(parameters):
        return NO_PARAMETERS
    return {key: value for key, value in parameters.items() if key not in _TRANSPORT}


def _shape(value: object, where: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise InvalidRequest(f"{where}: shape is {shown(value)}; a list of sizes is needed")
    if len(value) > _MAX_RANK:
        raise InvalidRequest(f"{where}: shape has {len(value)} dimensions; at most {_MAX_RANK} are allowed")
    for size in value:
        if type(size) is not int or not 0 <= size <= _MAX_SIZE:
            raise InvalidRequest(f"{where}: shape {shown(value)} holds {shown(size)}; allowed: 0 to {_MAX_SIZE}")
    return tuple(value)


def _requested(
    document: dict[str, Any], binary_output: bool, *, regions: Regions | None
) -> tuple[RequestedOutput, ...] | None:
    items = document.get("outputs")
    if items is None or items == []:
        return None
    if not isinstance(items, list):
        raise InvalidRequest(f"outputs is {shown(items)}; a list of outputs is needed")
    outputs: dict[str, RequestedOutput] = {}
    for index, item in enumerate(items):
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(name, str):
            raise InvalidRequest(f"outputs[{index}] is {shown(item)}; an object with a name is needed")
        if name in outputs:
            raise InvalidRequest(f"output {shown(name)} is asked for twice")
        where = f"output {shown(name)}"
        parameters = _object(item, "parameters", where)
        if parameters.get("classification"):
            raise InvalidRequest(f"{where}: the classification extension is not supported")
        _kept(parameters, where)
        binary = _flag(parameters, "binary_data", default=binary_output)
        if "shared_memory_region" in parameters:
            outputs[name] = RequestedOutput(name, False, _window(parameters, where, regions))
        else:
            outputs[name] = RequestedOutput(name, binary)
    return tuple(outputs.values())


def _encode(head: dict[str, Any], identity: str | None, named: Mapping[str, Sequence[Tensor]]) -> Encoded:
    if identity is not None:
        head["id"] = identity
    blobs: list[bytes | memoryview] = []
    for key, tensors in named.items():
        head[key] = [_tensor_document(tensor, blobs) for tensor in tensors]
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    if not blobs:
        return Encoded((text,), JSON)
    return Encoded((text, *blobs), BINARY, len(text))


def _tensor_document(tensor: Tensor, blobs: list[bytes | memoryview]) -> dict[str, Any]:
    shape = list(tensor.array.shape)
    document: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": shape}
    if tensor.region is not None:
        blob = encode_binary(tensor.array, tensor.datatype)
        tensor.region.write(blob, where=f"tensor {shown(tensor.name)}")
        document["parameters"] = _window_parameters(tensor.region._replace(size=len(blob)))
    elif tensor.binary:
        blob = encode_binary(tensor.array, tensor.datatype)
        blobs.append(blob)
        document["parameters"] = {"binary_data_size": len(blob)}
    else:
        document["data"] = encode_json(tensor.array, tensor.datatype)
    if tensor.parameters:
        document["parameters"] = {**tensor.parameters, **document.get("parameters", {})}
    return document


def _object(document: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where}: {key} is {shown(value)}; an object is needed")
    return value


def _flag(parameters: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise InvalidRequest(f"parameters.{key} is {shown(value)}; true or false is needed")
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
