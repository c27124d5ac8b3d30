"""A model file's properties (``metadata_props``), read past its graph.

Only the outermost message is looked at, a few bytes of each of its fields, so a model of gigabytes takes as long as a
small one. Wire format: protobuf.dev/programming-guides/encoding; field numbers: onnx.proto of ONNX.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

_METADATA_PROPS = 14
_KEY, _VALUE = 1, 2
_LARGEST = 1 << 16
"""Bytes of a property; a larger one is passed over."""


class _MalformedError(ValueError):
    """These bytes are no protobuf message."""


def read_properties(path: Path) -> dict[str, str]:
    """The properties by key; as far as they can be read in a file that is no model.

    Raises:
        OSError: the file cannot be read.
    """
    found: dict[str, str] = {}
    with path.open("rb") as file, suppress(_MalformedError, UnicodeDecodeError):
        for number, size in _fields(file, path.stat().st_size):
            if number == _METADATA_PROPS and size <= _LARGEST:
                entry = _entry(file.read(size))
                found[entry.get(_KEY, b"").decode()] = entry.get(_VALUE, b"").decode()
    return found


def _entry(data: bytes) -> dict[int, bytes]:
    message = BytesIO(data)
    return {number: message.read(size) for number, size in _fields(message, len(data))}


def _fields(message: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Number and bytes of each field that has a length; the message stands at its first byte then."""
    while message.tell() < end:
        number, kind = divmod(_varint(message), 8)
        match kind:
            case 0:
                _varint(message)
            case 1 | 5:
                message.seek(8 if kind == 1 else 4, os.SEEK_CUR)
            case 2:
                size = _varint(message)
                after = message.tell() + size
                if after > end:
                    raise _MalformedError("cut short")
                yield number, size
                message.seek(after)
            case _:
                raise _MalformedError(f"wire type {kind}")


def _varint(message: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = message.read(1)
        if not byte:
            raise _MalformedError("cut short")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _MalformedError("a number of more than 64 bits")
