"""A model file's properties (``metadata_props``), read past its graph.

Only the outermost message is looked at, a few bytes of each of its fields, so a model of gigabytes takes as long as a
small one. Field numbers: onnx.proto of ONNX.
"""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from pathlib import Path

from openclaw.graph.wire import DELIMITED, MalformedError, fields

_METADATA_PROPS = 14
_KEY, _VALUE = 1, 2
_LARGEST = 1 << 16
"""Bytes of a property; a larger one is passed over."""


def read_properties(path: Path) -> dict[str, str]:
    """The properties by key; as far as they can be read in a file that is no model.

    Raises:
        OSError: the file cannot be read.
    """
    found: dict[str, str] = {}
    with path.open("rb") as file, suppress(MalformedError, UnicodeDecodeError):
        for field in fields(file, path.stat().st_size):
            if field.number == _METADATA_PROPS and field.kind == DELIMITED and field.size <= _LARGEST:
                entry = _entry(file.read(field.size))
                found[entry.get(_KEY, b"").decode()] = entry.get(_VALUE, b"").decode()
    return found


def readable_properties(path: Path) -> dict[str, str]:
    """The same; none of a file that cannot be read."""
    try:
        return read_properties(path)
    except OSError:
        return {}


def _entry(data: bytes) -> dict[int, bytes]:
    message = BytesIO(data)
    return {field.number: message.read(field.size) for field in fields(message, len(data)) if field.kind == DELIMITED}
