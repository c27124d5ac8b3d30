"""One tensor's data in the Open Inference Protocol: JSON lists and little-endian bytes, both ways."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from openclaw.errors import InvalidRequest
from openclaw.execute.session import Array
from openclaw.graph import bfloat16
from openclaw.graph.signature import NUMPY_OF
from openclaw.serving.shown import shown

TEXT_COST = 8
"""Bytes of objects for each byte of numbers in text while it is read: a float of four characters takes 32 in Python."""

_LENGTH = 4
_PIECE = 4096

_NUMBERS: set[type] = {int, float}
_INTEGERS: set[type] = {int}
_BOOLEANS: set[type] = {bool}
_STRINGS: set[type] = {str}

# What JSON may hold for each datatype, and how to say so.
_JSON_TYPES: dict[str, tuple[set[type], str]] = {
    **{datatype: (_INTEGERS, "integers") for datatype, dtype in NUMPY_OF.items() if dtype.kind in "iu"},
    **dict.fromkeys(("FP16", "BF16", "FP32", "FP64"), (_NUMBERS, "numbers")),
    "BOOL": (_BOOLEANS, "true or false"),
    "BYTES": (_STRINGS, "strings"),
}

PLAIN: dict[str, tuple[str, set[type]]] = {
    **{name: (code, _INTEGERS) for name, code in zip(("INT8", "INT16", "INT32", "INT64"), "bhiq", strict=True)},
    **{name: (code, _INTEGERS) for name, code in zip(("UINT8", "UINT16", "UINT32", "UINT64"), "BHIQ", strict=True)},
    **{name: (code, _NUMBERS) for name, code in zip(("FP16", "FP32", "FP64"), "efd", strict=True)},
}
"""How struct packs the datatypes of plain numbers, and of which types of Python."""


def decode_plain(data: list[Any], datatype: str, shape: Sequence[Any]) -> Array | None:
    """The array of a flat list of numbers as nearly every request holds it; None where a closer look is needed.

    It takes nothing that :func:`decode_json` refuses, and gives the same values, not to be written to.
    """
    plain = PLAIN.get(datatype)
    if plain is None or not data or not _is_plain(shape, len(data)):
        return None
    code, allowed = plain
    # struct would take a bool for a number.
    if not allowed.issuperset(map(type, data)):
        return None
    try:
        # It checks every number's range on the way, and takes half the time of numpy's reading of a list.
        packed = struct.pack(f"<{len(data)}{code}", *data) if len(data) <= _PIECE else _pack_long(data, code)
    except (struct.error, OverflowError):
        return None
    return np.frombuffer(packed, NUMPY_OF[datatype]).reshape(shape)


def _pack_long(data: list[Any], code: str) -> bytearray:
    """The same piece by piece: at once, the arguments would take as much memory as the list."""
    size = struct.calcsize(f"<{code}")
    packed = bytearray(len(data) * size)
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        struct.pack_into(f"<{len(piece)}{code}", packed, start * size, *piece)
    return packed


def _is_plain(shape: Sequence[Any], count: int) -> bool:
    product = 1
    for size in shape:
        if type(size) is not int or size < 1:
            return False
        product *= size
    return product == count and 0 < len(shape) <= 8


def decode_json(data: object, datatype: str, shape: tuple[int, ...], *, where: str) -> Array:
    """Turns JSON ``data``, flat or nested as ``shape`` says, into an array.

    Raises:
        InvalidRequest: the data is not a list, ragged, of another length, or holds a value that
            ``datatype`` cannot.
    """
    flat = _flatten(data, shape, where)
    if (plain := decode_plain(flat, datatype, shape)) is not None:
        return plain
    allowed, wanted = _JSON_TYPES[datatype]
    for found in set(map(type, flat)) - allowed:
        value = next(item for item in flat if type(item) is found)
        raise InvalidRequest(f"{where}: data holds {shown(value, absent='null')}; {datatype} takes {wanted}")
    expected = math.prod(shape)
    if len(flat) != expected:
        raise InvalidRequest(f"{where}: data has {len(flat)} values; shape {list(shape)} takes {expected}")
    return _reshape(_convert(flat, datatype, where), shape, where)


def decode_binary(data: memoryview, datatype: str, shape: tuple[int, ...], *, where: str) -> Array:
    """Reads raw little-endian bytes; numbers are not copied unless they lie unaligned.

    ``BYTES`` must be UTF-8: onnxruntime's strings are, and its Python interface would turn bytes that are not
    into something else.

    Raises:
        InvalidRequest: the bytes are not exactly those of ``shape``, or a ``BYTES`` element is cut or not
            UTF-8.
    """
    if datatype == "BYTES":
        return _reshape(_strings(data, math.prod(shape), where), shape, where)
    dtype = NUMPY_OF[datatype]
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidRequest(
            f"{where}: binary_data_size is {len(data)}; {datatype} of shape {list(shape)} takes {expected} bytes"
        )
    if datatype == "BOOL":
        # A numpy bool that is neither 0 nor 1 has no meaning; the wire may hold any byte.
        return _reshape(np.frombuffer(data, dtype=np.uint8) != 0, shape, where)
    array: Array = np.frombuffer(data, dtype=dtype)
    return _reshape(array if array.flags.aligned else array.copy(), shape, where)


def encode_json(array: Array, datatype: str) -> Any:
    """What orjson writes as the flat, row-major list of the tensor's values."""
    if datatype == "BYTES":
        return [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in array.flat]
    if datatype == "BF16":
        array = bfloat16.to_float32(array)
    return np.ascontiguousarray(array).reshape(-1)


def encode_binary(array: Array, datatype: str) -> bytes | memoryview:
    """The tensor's raw bytes, row-major and little-endian; those of numbers where they lie, if they lie right."""
    if datatype == "BYTES":
        items = [item if isinstance(item, bytes) else str(item).encode() for item in array.flat]
        return b"".join(chain.from_iterable((len(item).to_bytes(_LENGTH, "little"), item) for item in items))
    numbers = np.ascontiguousarray(array.astype(NUMPY_OF[datatype], copy=False))
    return numbers.data.cast("B") if numbers.size else b""


def _flatten(data: object, shape: tuple[int, ...], where: str) -> list[Any]:
    if not isinstance(data, list):
        raise InvalidRequest(f"{where}: data is {shown(data, absent='null')}; a list is needed")
    level: list[Any] = data
    depth = 1
    while level and type(level[0]) is list:
        depth += 1
        lengths = {len(item) if type(item) is list else -1 for item in level}
        if depth > len(shape) or len(lengths) != 1:
            raise InvalidRequest(
                f"{where}: data is nested unevenly or too deep; give it flat, or nested as shape {list(shape)}"
            )
        if lengths != {shape[depth - 1]}:
            raise InvalidRequest(
                f"{where}: data has rows of {lengths.pop()} at depth {depth}; "
                f"shape {list(shape)} takes {shape[depth - 1]}"
            )
        level = list(chain.from_iterable(level))
    if depth > 1 and depth != len(shape):
        raise InvalidRequest(f"{where}: data is nested {depth} deep; give it flat, or nested as shape {list(shape)}")
    return level


def _convert(flat: list[Any], datatype: str, where: str) -> Array:
    if _JSON_TYPES[datatype][0] is _NUMBERS:
        return _floats(flat, datatype, where)
    dtype = NUMPY_OF[datatype]
    if dtype.kind in "bO":
        return np.array(flat, dtype=dtype)
    bounds = np.iinfo(dtype.str)
    if flat and (min(flat) < bounds.min or max(flat) > bounds.max):
        value = min(flat) if min(flat) < bounds.min else max(flat)
        raise InvalidRequest(f"{where}: data holds {value}; {datatype} takes {bounds.min} to {bounds.max}")
    return np.array(flat, dtype=dtype)


def _floats(flat: list[Any], datatype: str, where: str) -> Array:
    """BF16 is rounded by way of FP32."""
    numbers = np.array(flat, dtype=np.float64)
    with np.errstate(over="ignore"):
        array: Array = numbers.astype(np.float32 if datatype == "BF16" else NUMPY_OF[datatype])
    if datatype == "BF16":
        bits = bfloat16.to_bits(array.astype(np.float32, copy=False))
        array, finite = bits, np.isfinite(bfloat16.to_float32(bits))
    else:
        finite = np.isfinite(array.astype(np.float64))
    if not finite.all():
        value = flat[int(np.flatnonzero(~finite)[0])]
        raise InvalidRequest(f"{where}: data holds {value!r}, which is too large for {datatype}")
    return array


def _strings(data: memoryview, count: int, where: str) -> Array:
    items: list[str] = []
    position = 0
    while position < len(data):
        start = position + _LENGTH
        position = start + int.from_bytes(data[position:start], "little")
        if start > len(data) or position > len(data):
            raise InvalidRequest(f"{where}: element {len(items)} is cut short; {len(data)} bytes were given")
        try:
            items.append(str(data[start:position], "utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{where}: element {len(items)} is not UTF-8: {error.reason}") from error
    if len(items) != count:
        raise InvalidRequest(f"{where}: the bytes hold {len(items)} elements; the shape takes {count}")
    return np.array(items, dtype=object)


def _reshape(array: Array, shape: tuple[int, ...], where: str) -> Array:
    try:
        return array.reshape(shape)
    except ValueError as error:
        # Only a shape with a zero beside sizes whose product no machine can address comes here.
        raise InvalidRequest(f"{where}: shape {list(shape)} is too large") from error
