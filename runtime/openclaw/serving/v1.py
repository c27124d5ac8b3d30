"""KServe's V1 protocol over the same inference as V2: ``:predict`` with rows or columns, as JSON alone.

``instances`` is a list of rows, each the row of the only input or an object of rows by input name.
``inputs`` is the whole tensor of the only input, or an object of tensors by input name. Datatypes come from
the model, shapes from how deep and long the lists are.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol, whose forms are
those of TensorFlow Serving's REST interface. ``predictions`` answer in the form that was asked in: a list of
rows, with an object for each row where there are several outputs; or tensors, by name where there are several.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from openclaw.errors import InvalidRequest
from openclaw.execute.session import Array
from openclaw.graph.signature import Signature, TensorSpec
from openclaw.serving.binding import listed
from openclaw.serving.inference import InferRequest, InferResponse, Tensor
from openclaw.serving.protocol import JSON, Encoded
from openclaw.serving.shown import shown
from openclaw.serving.tensors import decode_json, encode_json

_MAX_RANK = 64


class Prediction(NamedTuple):
    """A decoded ``:predict``; ``columnar``: it came as ``inputs`` and is answered so."""

    request: InferRequest
    columnar: bool


def decode_predict(body: bytes | bytearray | memoryview, signature: Signature) -> Prediction:
    """Decodes the body of ``:predict`` for a model.

    Raises:
        InvalidRequest: the body is neither rows nor columns of the model's inputs.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body is {shown(document)}; an object with instances or inputs is needed")
    given = [key for key in ("instances", "inputs") if key in document]
    if len(given) != 1:
        raise InvalidRequest(f"the body has {' and '.join(given) or 'neither instances nor inputs'}; give one of them")
    columnar = given == ["inputs"]
    columns = (_columns if columnar else _rows)(document[given[0]], signature)
    tensors = tuple(
        [_tensor(spec, columns[spec.name], where=f"{given[0]} of {spec.name}") for spec in signature.inputs]
    )
    return Prediction(InferRequest(tensors), columnar)


def encode_predict(response: InferResponse, *, columnar: bool) -> Encoded:
    """Encodes the answer to ``:predict``. NaN and infinities become ``null``.

    Raises:
        InvalidRequest: rows were asked for, and the model's outputs have none in common.
    """
    outputs = response.outputs
    predictions: object
    if len(outputs) == 1:
        predictions = _nested(outputs[0])
    elif columnar:
        predictions = {output.name: _nested(output) for output in outputs}
    else:
        predictions = _joined(outputs)
    return Encoded((orjson.dumps({"predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY),), JSON)


def models(names: Iterable[str]) -> dict[str, Any]:
    """The document of ``/v1/models``."""
    return {"models": list(names)}


def status(name: str, *, ready: bool) -> dict[str, Any]:
    """The document of ``/v1/models/NAME``."""
    return {"name": name, "ready": ready}


def _rows(instances: object, signature: Signature) -> Mapping[str, Any]:
    """The rows of every input, gathered from the instances."""
    if not isinstance(instances, list) or not instances:
        raise InvalidRequest(f"instances is {shown(instances, absent='null')}; a non-empty list of rows is needed")
    if not isinstance(instances[0], dict):
        return {_only(signature, "instances"): instances}
    for index, instance in enumerate(instances):
        if not isinstance(instance, dict):
            raise InvalidRequest(f"instances[{index}] is {shown(instance, absent='null')}, but others are objects")
        _check_names(instance, signature, where=f"instances[{index}]")
    return {spec.name: [instance[spec.name] for instance in instances] for spec in signature.inputs}


def _columns(inputs: object, signature: Signature) -> Mapping[str, Any]:
    if not isinstance(inputs, dict):
        return {_only(signature, "inputs"): inputs}
    _check_names(inputs, signature, where="inputs")
    return inputs


def _only(signature: Signature, field: str) -> str:
    if len(signature.inputs) != 1:
        raise InvalidRequest(
            f"{field} does not say which input it is for; give values by name, the model takes "
            f"{listed(signature.inputs)}"
        )
    return signature.inputs[0].name


def _check_names(values: dict[str, Any], signature: Signature, *, where: str) -> None:
    specs = signature.inputs_by_name
    if values.keys() == specs.keys():
        return
    unknown = next((name for name in values if name not in specs), None)
    if unknown is not None:
        raise InvalidRequest(f"{where}: there is no input {shown(unknown)}; the model takes {listed(signature.inputs)}")
    missing = next(name for name in specs if name not in values)
    raise InvalidRequest(f"{where}: input {shown(missing)} is missing; the model takes {listed(signature.inputs)}")


def _tensor(spec: TensorSpec, value: object, *, where: str) -> Tensor:
    # A bare number or string is a tensor without dimensions.
    data = value if isinstance(value, list) else [value]
    shape = _shape(value)
    return Tensor(spec.name, spec.datatype, decode_json(data, spec.datatype, shape, where=where))


def _shape(value: object) -> tuple[int, ...]:
    """The shape as the first element of each level says; decoding finds out whether all levels agree."""
    shape: list[int] = []
    while isinstance(value, list) and len(shape) <= _MAX_RANK:
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _nested(tensor: Tensor) -> Any:
    """Nested lists, or an array that orjson writes as such."""
    flat = encode_json(tensor.array, tensor.datatype)
    array: Array = np.array(flat, dtype=object) if tensor.datatype == "BYTES" else flat
    array = array.reshape(tensor.array.shape)
    return array if array.ndim and array.dtype != object else array.tolist()


def _joined(outputs: tuple[Tensor, ...]) -> list[dict[str, Any]]:
    """One object a row, with the row of every output by its name."""
    counts = {output.array.shape[0] if output.array.ndim else None for output in outputs}
    if len(counts) != 1 or None in counts:
        shapes = ", ".join(f"{output.name}{list(output.array.shape)}" for output in outputs)
        raise InvalidRequest(f"the outputs {shapes} have no rows in common; ask with inputs instead of instances")
    columns = [_nested(output) for output in outputs]
    lists = [column if isinstance(column, list) else column.tolist() for column in columns]
    names = [output.name for output in outputs]
    return [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]
