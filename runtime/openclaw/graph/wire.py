"""Protobuf's wire format, as far as a model file needs it: fields are found without reading what is in them.

So a file of gigabytes is walked with a few bytes in memory. Format: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
_WIDTHS = {FIXED64: 8, FIXED32: 4}


class MalformedError(ValueError):
    """These bytes are no protobuf message."""


class Field(NamedTuple):
    """One field of a message, by its place in the file.

    Attributes:
        number: of the field.
        kind: wire type.
        start: where its tag begins.
        at: where its content begins.
        size: bytes of its content.
        value: of a varint; 0 of anything else.
    """

    number: int
    kind: int
    start: int
    at: int
    size: int
    value: int

    @property
    def end(self) -> int:
        """Where the next field begins."""
        return self.at + self.size


def fields(message: BinaryIO, end: int) -> Iterator[Field]:
    """The fields of a message that begins where the file stands; at each one the file stands at its content.

    Args:
        message: is moved from field to field; whoever reads elsewhere meanwhile does no harm.
        end: where the message ends.

    Raises:
        MalformedError: it is none, or goes beyond ``end``.
    """
    start = message.tell()
    while start < end:
        number, kind = divmod(_varint(message), 8)
        value, at = 0, message.tell()
        if kind == VARINT:
            value = _varint(message)
            size = message.tell() - at
        elif kind in _WIDTHS:
            size = _WIDTHS[kind]
        elif kind == DELIMITED:
            size = _varint(message)
            at = message.tell()
        else:
            raise MalformedError(f"wire type {kind}")
        found = Field(number, kind, start, at, size, value)
        if found.end > end:
            raise MalformedError("cut short")
        message.seek(at)
        yield found
        start = found.end
        message.seek(start)


def _varint(message: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = message.read(1)
        if not byte:
            raise MalformedError("cut short")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise MalformedError("a number of more than 64 bits")


def varint(value: int) -> bytes:
    """A number from 0 as it is written."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def numbered(number: int, value: int) -> bytes:
    """A field with a number."""
    return varint(number << 3 | VARINT) + varint(value)


def head(number: int, size: int) -> bytes:
    """What stands before the ``size`` bytes of a field with a length."""
    return varint(number << 3 | DELIMITED) + varint(size)


def delimited(number: int, content: bytes) -> bytes:
    """A field with a length."""
    return head(number, len(content)) + content
