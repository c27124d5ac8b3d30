"""The Open Inference Protocol (v2) over REST, as pure functions from bytes to tensors and back.

JSON, and the binary tensor data extension: a JSON header of ``Inference-Header-Content-Length`` bytes,
then the raw tensors in order, little-endian, row-major. ``BYTES`` elements are UTF-8 strings, in binary
each behind its length in four bytes. FP16 travels in binary and as JSON numbers; BF16 does not travel.

Sources: https://github.com/open-inference/open-inference-protocol (required API) and Triton's
extension_binary_data.md. Every refusal is an :class:`InvalidRequest` that names field, value and what is
allowed; nothing is allocated by a shape before the data is known to be there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from openclaw.errors import InvalidRequest
from openclaw.execute.session import Array
from openclaw.graph.signature import NUMPY_OF, Signature, TensorSpec
from openclaw.serving.tensors import decode_binary, decode_json, decode_plain, encode_binary, encode_json

HEADER_LENGTH = "Inference-Header-Content-Length"
JSON = "application/json"
BINARY = "application/octet-stream"

_MAX_SIZE = 2**31 - 1
_MAX_RANK = 64
_PLAIN_REQUEST = frozenset({"id", "inputs"})
_PLAIN_FIELDS = frozenset({"name", "datatype", "shape", "data"})


class Tensor(NamedTuple):
    """A named tensor on the wire."""

    name: str
    datatype: str
    array: Array
    binary: bool = False


class RequestedOutput(NamedTuple):
    """An output that the client asks for; ``binary`` as raw bytes after the JSON."""

    name: str
    binary: bool


class InferRequest(NamedTuple):
    """A decoded request: consistent in itself, not yet held against a model."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] | None = None
    id: str | None = None
    binary_output: bool = False


class InferResponse(NamedTuple):
    """What is sent back; ``id`` is the request's."""

    model_name: str
    model_version: str
    outputs: tuple[Tensor, ...]
    id: str | None = None


class Encoded(NamedTuple):
    """A body in pieces with its content type; ``header_length`` is set when binary tensors follow the JSON."""

    parts: tuple[bytes | memoryview, ...]
    content_type: str
    header_length: int | None = None

    @property
    def body(self) -> bytes:
        """The pieces as one."""
        return b"".join(self.parts)


def decode_request(body: bytes | bytearray, header_length: str | None = None) -> InferRequest:
    """Decodes an inference request.

    Args:
        body: the whole body.
        header_length: the text of the ``Inference-Header-Content-Length`` header, if it was sent.

    Raises:
        InvalidRequest: the body is not a request of the protocol.
    """
    document, rest = _split(body, header_length)
    if plain := _plain_request(document):
        return plain
    parameters = _object(document, "parameters", "the request")
    items = document.get("inputs")
    if not isinstance(items, list) or not items:
        raise InvalidRequest(f"inputs is {_shown(items)}; a non-empty list of tensors is needed")
    tensors: list[Tensor] = []
    for index, item in enumerate(items):
        tensor, rest = _decode_tensor(item, f"inputs[{index}]", rest)
        if any(other.name == tensor.name for other in tensors):
            raise InvalidRequest(f"input {_shown(tensor.name)} is given twice")
        tensors.append(tensor)
    if len(rest):
        raise InvalidRequest(
            f"{len(rest)} bytes are left after the last binary tensor; binary_data_size counts them all"
        )
    binary_output = _flag(parameters, "binary_data_output", default=False)
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise InvalidRequest(f"id is {_shown(identity)}; a string is needed")
    return InferRequest(tuple(tensors), _requested(document, binary_output), identity, binary_output)


def bind(request: InferRequest, signature: Signature) -> tuple[dict[str, Array], tuple[RequestedOutput, ...]]:
    """Holds a request against a model's signature: its inputs by name, and the outputs to answer with.

    Raises:
        InvalidRequest: a name, datatype or shape is not the model's.
    """
    specs = signature.inputs_by_name
    arrays = {}
    for tensor in request.inputs:
        spec = specs.get(tensor.name)
        if spec is None:
            raise InvalidRequest(
                f"there is no input {_shown(tensor.name)}; the model takes {_listed(signature.inputs)}"
            )
        _check_against(tensor, spec)
        arrays[tensor.name] = tensor.array
    if len(arrays) < len(specs):
        missing = next(name for name in specs if name not in arrays)
        raise InvalidRequest(f"input {_shown(missing)} is missing; the model takes {_listed(signature.inputs)}")
    if not request.outputs:
        return arrays, tuple([RequestedOutput(spec.name, request.binary_output) for spec in signature.outputs])
    known = {spec.name for spec in signature.outputs}
    for output in request.outputs:
        if output.name not in known:
            raise InvalidRequest(
                f"there is no output {_shown(output.name)}; the model gives {_listed(signature.outputs)}"
            )
    return arrays, request.outputs


def encode_response(response: InferResponse) -> Encoded:
    """Encodes a response; JSON alone unless an output is binary.

    JSON has no NaN and no infinity: they become ``null``. Ask for binary outputs where they matter.
    """
    head: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    return _encode(head, response.id, {"outputs": response.outputs})


def encode_request(request: InferRequest) -> Encoded:
    """Encodes a request: what a client of this protocol sends."""
    head: dict[str, Any] = {}
    if request.binary_output:
        head["parameters"] = {"binary_data_output": True}
    if request.outputs is not None:
        head["outputs"] = [
            {"name": output.name, "parameters": {"binary_data": output.binary}} for output in request.outputs
        ]
    return _encode(head, request.id, {"inputs": request.inputs})


def metadata(name: str, version: str, signature: Signature) -> dict[str, Any]:
    """The model metadata document of the protocol."""
    return {
        "name": name,
        "versions": [version],
        "platform": "onnxruntime_onnx",
        "inputs": [_spec_document(spec) for spec in signature.inputs],
        "outputs": [_spec_document(spec) for spec in signature.outputs],
    }


def _split(body: bytes | bytearray, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 20):
            raise InvalidRequest(f"{HEADER_LENGTH} is {header_length[:40]!r}; a number of bytes is needed")
        length = int(header_length)
        if length > len(body):
            raise InvalidRequest(f"{HEADER_LENGTH} is {length}; the body has only {len(body)} bytes")
        if length == 0:
            raise InvalidRequest(f"{HEADER_LENGTH} is 0; requests without a JSON header are not supported")
    view = memoryview(body)
    try:
        document = orjson.loads(view[:length])
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body is {_shown(document)}; an object with inputs is needed")
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


def _decode_tensor(item: object, where: str, rest: memoryview) -> tuple[Tensor, memoryview]:
    if not isinstance(item, dict):
        raise InvalidRequest(f"{where} is {_shown(item)}; an object with name, datatype, shape and data is needed")
    name = item.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"{where}.name is {_shown(name)}; a non-empty string is needed")
    where = f"input {_shown(name)}"
    datatype = item.get("datatype")
    if not isinstance(datatype, str) or datatype not in NUMPY_OF:
        raise InvalidRequest(f"{where}: datatype is {_shown(datatype)}; allowed: {', '.join(NUMPY_OF)}")
    shape = _shape(item.get("shape"), where)
    size = _object(item, "parameters", where).get("binary_data_size")
    if size is None:
        if "data" not in item:
            raise InvalidRequest(f"{where} has neither data nor parameters.binary_data_size")
        return Tensor(name, datatype, decode_json(item["data"], datatype, shape, where=where)), rest
    if "data" in item:
        raise InvalidRequest(f"{where} has both data and parameters.binary_data_size; give one")
    if not _is_count(size):
        raise InvalidRequest(f"{where}: binary_data_size is {_shown(size)}; a number of bytes is needed")
    if size > len(rest):
        raise InvalidRequest(f"{where}: binary_data_size is {size}, but only {len(rest)} bytes are left in the body")
    array = decode_binary(rest[:size], datatype, shape, where=where)
    return Tensor(name, datatype, array, binary=True), rest[size:]


def _shape(value: object, where: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise InvalidRequest(f"{where}: shape is {_shown(value)}; a list of sizes is needed")
    if len(value) > _MAX_RANK:
        raise InvalidRequest(f"{where}: shape has {len(value)} dimensions; at most {_MAX_RANK} are allowed")
    for size in value:
        if not _is_count(size) or size > _MAX_SIZE:
            raise InvalidRequest(f"{where}: shape {_shown(value)} holds {_shown(size)}; allowed: 0 to {_MAX_SIZE}")
    return tuple(value)


def _requested(document: dict[str, Any], binary_output: bool) -> tuple[RequestedOutput, ...] | None:
    items = document.get("outputs")
    if items is None or items == []:
        return None
    if not isinstance(items, list):
        raise InvalidRequest(f"outputs is {_shown(items)}; a list of outputs is needed")
    outputs: dict[str, RequestedOutput] = {}
    for index, item in enumerate(items):
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(name, str):
            raise InvalidRequest(f"outputs[{index}] is {_shown(item)}; an object with a name is needed")
        if name in outputs:
            raise InvalidRequest(f"output {_shown(name)} is asked for twice")
        parameters = _object(item, "parameters", f"output {_shown(name)}")
        if parameters.get("classification"):
            raise InvalidRequest(f"output {_shown(name)}: the classification extension is not supported")
        outputs[name] = RequestedOutput(name, _flag(parameters, "binary_data", default=binary_output))
    return tuple(outputs.values())


def _check_against(tensor: Tensor, spec: TensorSpec) -> None:
    if tensor.datatype != spec.datatype:
        raise InvalidRequest(f"input {_shown(tensor.name)} is {tensor.datatype}; the model takes {spec.datatype}")
    if not spec.accepts(tensor.array.shape):
        raise InvalidRequest(
            f"input {_shown(tensor.name)} has shape {list(tensor.array.shape)}; "
            f"the model takes {list(spec.shape)} (-1: any size)"
        )


def _encode(head: dict[str, Any], identity: str | None, named: Mapping[str, Sequence[Tensor]]) -> Encoded:
    if identity is not None:
        head["id"] = identity
    blobs: list[bytes | memoryview] = []
    for key, tensors in named.items():
        head[key] = [_tensor_document(tensor, blobs) for tensor in tensors]
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    if not any(tensor.binary for tensors in named.values() for tensor in tensors):
        return Encoded((text,), JSON)
    return Encoded((text, *blobs), BINARY, len(text))


def _tensor_document(tensor: Tensor, blobs: list[bytes | memoryview]) -> dict[str, Any]:
    shape = list(tensor.array.shape)
    document: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": shape}
    if tensor.binary:
        blob = encode_binary(tensor.array, tensor.datatype)
        blobs.append(blob)
        document["parameters"] = {"binary_data_size": len(blob)}
    else:
        document["data"] = encode_json(tensor.array, tensor.datatype)
    return document


def _spec_document(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _object(document: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where}: {key} is {_shown(value)}; an object is needed")
    return value


def _flag(parameters: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise InvalidRequest(f"parameters.{key} is {_shown(value)}; true or false is needed")
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(str(spec) for spec in specs) or "none"


def _shown(value: object) -> str:
    """A value as JSON, short enough for a sentence; deep or large ones only by their kind."""
    if value is None:
        return "missing"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list) and (len(value) > 16 or any(isinstance(item, list | dict) for item in value)):
        return f"a list of {len(value)}"
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."
