"""The few things about a serialized message that are worth doing by hand: large tensors in and out without copies.

A generated message copies each ``bytes`` field twice, into its own memory and out of it. Tensors travel in
top-level fields of their own (``raw_input_contents`` and ``raw_output_contents``), so here a request is cut into
views of its tensors and the rest, and an answer's tensors are joined to the rest.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_MAX_VARINT = 10


def split(message: bytes, field: int) -> tuple[bytes, list[memoryview]] | None:
    """Takes a top-level field of length-delimited values out of a message.

    Returns:
        The message without that field, and the field's values in order, where they lie; None where the message is
        not plainly valid at its top level, which a real parser shall judge.
    """
    view = memoryview(message)
    rest: list[memoryview] = []
    values: list[memoryview] = []
    position = kept = 0
    while position < len(view):
        start = position
        try:
            tag, position = _varint(message, position)
            begin, position = _value(message, position, tag & 7)
        except (IndexError, ValueError):
            return None
        if position > len(view):
            return None
        if tag == field << 3 | _LEN:
            rest.append(view[kept:start])
            values.append(view[begin:position])
            kept = position
    rest.append(view[kept:])
    return b"".join(rest), values


def join(head: bytes, values: Sequence[bytes | memoryview], *, field: int) -> bytes:
    """A serialized message with further values of a length-delimited top-level field; inverse of :func:`split`."""
    parts: list[bytes | memoryview] = [head]
    for value in values:
        parts.append(_prefix(field, len(value)))
        parts.append(value)
    return b"".join(parts)


def _value(message: bytes, position: int, kind: int) -> tuple[int, int]:
    """Where a value's content begins and ends."""
    if kind == _LEN:
        length, position = _varint(message, position)
        return position, position + length
    if kind == _VARINT:
        return position, _varint(message, position)[1]
    if kind in (_I64, _I32):
        return position, position + (8 if kind == _I64 else 4)
    raise ValueError(kind)


def _varint(message: bytes, position: int) -> tuple[int, int]:
    number = 0
    for place in range(_MAX_VARINT):
        byte = message[position + place]
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, position + place + 1
    raise ValueError("a varint has at most 10 bytes")


@lru_cache(maxsize=1024)
def _prefix(field: int, length: int) -> bytes:
    """What is before a value: servers answer with the same few lengths."""
    return bytes((*_encoded(field << 3 | _LEN), *_encoded(length)))


def _encoded(number: int) -> Iterable[int]:
    while number > 0x7F:
        yield number & 0x7F | 0x80
        number >>= 7
    yield number
