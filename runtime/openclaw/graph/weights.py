"""Where a model file keeps its weights, and the same model with the large ones outside of it.

ONNX lets an initializer name a file, and bytes in it, in place of its values (onnx/docs/ExternalData.md): such ones
onnxruntime maps into memory where it would copy the others. The model is never in memory here, only the places of its
parts. Field numbers: onnx.proto of ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from openclaw.graph.wire import DELIMITED, VARINT, Field, MalformedError, delimited, fields, head, numbered

LARGE = 1 << 14
"""Bytes from which a tensor goes outside. Smaller ones hold shapes and axes that must be known to open the model."""

_GRAPH = 7
_INITIALIZER = 5
_DATA_TYPE, _RAW_DATA, _FLOAT_DATA, _DOUBLE_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 2, 9, 4, 10, 13, 14
_VALUES = {_FLOAT_DATA, 5, 6, 7, _RAW_DATA, _DOUBLE_DATA, 11}
_AS_IN_MEMORY = {_FLOAT_DATA: 1, _DOUBLE_DATA: 11}
"""Packed numbers that are written as they lie in memory, with the data type of which that is so."""
_EXTERNAL = 1
_KEY, _VALUE = 1, 2
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Weight:
    """A large initializer in the model file.

    Attributes:
        start, end: of its whole field.
        at: where its values begin.
        size: bytes of them.
        rest: its message without the values.
    """

    start: int
    end: int
    at: int
    size: int
    rest: bytes


@dataclass(frozen=True, slots=True)
class Weights:
    """Of one model file.

    Attributes:
        size: bytes of the file.
        graph: the field of its graph.
        inside: large ones that can go outside.
        outside: bytes of those that are outside already.
    """

    size: int
    graph: Field
    inside: tuple[Weight, ...]
    outside: int

    @property
    def large(self) -> int:
        """Bytes of all that are outside, or can go there."""
        return self.outside + sum(weight.size for weight in self.inside)

    @property
    def small(self) -> int:
        """Bytes of the file that stay in it."""
        return self.size - sum(weight.size for weight in self.inside)


def read_weights(path: Path) -> Weights:
    """Where a model file has its weights.

    Raises:
        OSError: the file cannot be read.
        MalformedError: it is no model.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        graphs = [field for field in fields(file, size) if field.number == _GRAPH and field.kind == DELIMITED]
        if len(graphs) != 1:
            raise MalformedError(f"{len(graphs)} graphs")
        inside, outside = [], 0
        file.seek(graphs[0].at)
        for field in fields(file, graphs[0].end):
            if field.number == _INITIALIZER and field.kind == DELIMITED:
                found = _weight(file, field)
                if isinstance(found, Weight):
                    inside.append(found)
                else:
                    outside += found
    return Weights(size, graphs[0], tuple(inside), outside)


def _weight(file: BinaryIO, tensor: Field) -> Weight | int:
    """An initializer that can go outside, or how many bytes it has there already."""
    parts = list(fields(file, tensor.end))
    values = [part for part in parts if part.number in _VALUES]
    if any(part.number == _DATA_LOCATION and part.value == _EXTERNAL for part in parts):
        return sum(_length(file, part) for part in parts if part.number == _EXTERNAL_DATA)
    if len(values) != 1 or values[0].kind != DELIMITED or values[0].size < LARGE:
        return 0
    (value,) = values
    datatype = next((part.value for part in parts if part.number == _DATA_TYPE and part.kind == VARINT), 0)
    if value.number != _RAW_DATA and _AS_IN_MEMORY.get(value.number) != datatype:
        return 0
    rest = b"".join(_bytes(file, part) for part in parts if part is not value and part.number != _DATA_LOCATION)
    return Weight(tensor.start, tensor.end, at=value.at, size=value.size, rest=rest)


def _length(file: BinaryIO, entry: Field) -> int:
    """The number of an entry ``length``; 0 of any other."""
    file.seek(entry.at)
    texts = {}
    for part in fields(file, entry.end):
        texts[part.number] = file.read(min(part.size, 32))
    number = texts.get(_VALUE, b"")
    return int(number) if texts.get(_KEY) == b"length" and number.isdigit() else 0


def _bytes(file: BinaryIO, field: Field) -> bytes:
    file.seek(field.start)
    return file.read(field.end - field.start)


def write_outside(path: Path, weights: Weights, *, places: Sequence[str], to: BinaryIO) -> int:
    """Writes the model with its large weights left out; returns how many bytes that were.

    Args:
        path: the model file.
        weights: what :func:`read_weights` found in it.
        places: for each of ``weights.inside`` the file that holds its values and nothing else, from the folder of the
            written model on.
        to: where to write.

    Raises:
        OSError: it cannot be read or written.
    """
    tensors = [_outside(weight, place) for weight, place in zip(weights.inside, places, strict=True)]
    graph = weights.graph
    cut = sum(weight.end - weight.start for weight in weights.inside)
    size = graph.size - cut + sum(map(len, tensors))
    written = 0
    with path.open("rb") as file:
        for part in _parts(weights, tensors, head=head(_GRAPH, size)):
            if isinstance(part, bytes):
                written += to.write(part)
            else:
                written += copy(file, to, at=part[0], size=part[1] - part[0])
    return written


def _parts(weights: Weights, tensors: Sequence[bytes], *, head: bytes) -> Iterator[bytes | tuple[int, int]]:
    """The written model: bytes, or from where to where it is as in the file."""
    yield 0, weights.graph.start
    yield head
    at = weights.graph.at
    for weight, tensor in zip(weights.inside, tensors, strict=True):
        yield at, weight.start
        yield tensor
        at = weight.end
    yield at, weights.size


def _outside(weight: Weight, place: str) -> bytes:
    entries = {"location": place, "offset": "0", "length": str(weight.size)}
    data = b"".join(
        delimited(_EXTERNAL_DATA, delimited(_KEY, key.encode()) + delimited(_VALUE, value.encode()))
        for key, value in entries.items()
    )
    return delimited(_INITIALIZER, weight.rest + data + numbered(_DATA_LOCATION, _EXTERNAL))


def copy(file: BinaryIO, to: BinaryIO, *, at: int, size: int) -> int:
    """Copies bytes of one file to another, a chunk at a time; returns how many.

    Raises:
        OSError: a file cannot be read or written, or ends before.
    """
    for chunk in chunks(file, at=at, size=size):
        to.write(chunk)
    return size


def chunks(file: BinaryIO, *, at: int, size: int) -> Iterator[bytes]:
    """Bytes of a file, a part at a time.

    Raises:
        OSError: it cannot be read, or ends before.
    """
    file.seek(at)
    left = size
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise OSError(f"the file ends {left} bytes too early")
        left -= len(chunk)
        yield chunk
