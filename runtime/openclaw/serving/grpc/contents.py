"""One tensor's elements in a gRPC request: raw bytes, or the typed field that its datatype takes."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from openclaw.errors import InvalidRequest
from openclaw.execute.session import Array
from openclaw.graph.signature import NUMPY_OF
from openclaw.serving.grpc.inference_pb2 import InferTensorContents
from openclaw.serving.tensors import decode_binary

_FIELD_OF = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
# What the integers of a field are before they become the tensor's.
_WIDE = {"int_contents": np.dtype("<i4"), "uint_contents": np.dtype("<u4")}


def raw(data: memoryview, datatype: str, shape: tuple[int, ...], *, where: str, field: str) -> Array:
    """The array of little-endian, row-major bytes, using their memory where it can.

    Raises:
        InvalidRequest: they are not exactly those of ``shape``; ``field`` is where they came from.
    """
    if datatype != "BYTES":
        expected = math.prod(shape) * NUMPY_OF[datatype].itemsize
        if len(data) != expected:
            raise InvalidRequest(
                f"{where}: {field} has {len(data)} bytes; {datatype} of shape {list(shape)} takes {expected}"
            )
    return decode_binary(data, datatype, shape, where=where)


def typed(given: InferTensorContents, datatype: str, shape: tuple[int, ...], *, where: str) -> Array:
    """The array of typed contents.

    Raises:
        InvalidRequest: the elements are not in the datatype's field, not as many as ``shape`` takes, or not the
            datatype's.
    """
    field = _FIELD_OF.get(datatype)
    if field is None:
        raise InvalidRequest(f"{where}: {datatype} has no field in contents; send it in raw_input_contents")
    for descriptor, _ in given.ListFields():
        if descriptor.name != field:
            raise InvalidRequest(f"{where}: contents has {descriptor.name}; {datatype} takes {field}")
    values = getattr(given, field)
    expected = math.prod(shape)
    if len(values) != expected:
        raise InvalidRequest(f"{where}: {field} has {len(values)} values; shape {list(shape)} takes {expected}")
    array = _strings(values, where) if datatype == "BYTES" else _numbers(values, field, datatype=datatype, where=where)
    try:
        return array.reshape(shape)
    except ValueError as error:
        # Only a shape with a zero beside sizes whose product no machine can address comes here.
        raise InvalidRequest(f"{where}: shape {list(shape)} is too large") from error


def _numbers(values: Iterable[object], field: str, *, datatype: str, where: str) -> Array:
    dtype = NUMPY_OF[datatype]
    array: Array = np.array(values, dtype=_WIDE.get(field, dtype))
    if array.dtype == dtype or not array.size:
        return array.astype(dtype, copy=False)
    bounds = np.iinfo(dtype.str)
    low, high = int(array.min()), int(array.max())
    if low < bounds.min or high > bounds.max:
        value = low if low < bounds.min else high
        raise InvalidRequest(f"{where}: {field} holds {value}; {datatype} takes {bounds.min} to {bounds.max}")
    return array.astype(dtype)


def _strings(values: Iterable[bytes], where: str) -> Array:
    items: list[str] = []
    for value in values:
        try:
            items.append(value.decode())
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{where}: element {len(items)} is not UTF-8: {error.reason}") from error
    return np.array(items, dtype=object)
