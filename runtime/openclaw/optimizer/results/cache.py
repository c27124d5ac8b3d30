"""Results of earlier optimizations, in a folder or in an object store, so that a fleet optimizes a model once.

An entry holds for one :class:`openclaw.optimizer.task.Task`, and has its key for a name. In it are, after a first line
and the SHA-256 of what follows, the key again, the report, and the model (nothing, where the exported one was kept). It
is written in one step, and whatever does not fit, because it was cut short, damaged, or is somebody else's, is as good
as not there. So is a store that does not answer: then the model is optimized again, and the log says why.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from pathlib import Path

import obstore
import onnx
import pydantic
from google.protobuf.message import DecodeError

from openclaw.optimizer.results.place import FAILURES, brief, open_place
from openclaw.optimizer.results.report import Report
from openclaw.optimizer.results.result import Result

log = logging.getLogger(__name__)

_MAGIC = b"openclaw-optimized 1\n"
_LENGTH = struct.Struct("<Q")


class Cache:
    """Entries under one folder or URI."""

    def __init__(self, where: str | Path) -> None:
        """Names the place; nothing is asked of it yet.

        Raises:
            ConfigInvalid: it is no folder that can be made, or no URI of a store that takes files.
        """
        self._place = open_place(where)

    def load(self, key: str, exported: onnx.ModelProto) -> Result | None:
        """The entry, or None; ``exported`` is the model that it is for."""
        try:
            data = bytes(obstore.get(self._place.store, self._place.path(key)).bytes())
        except FileNotFoundError:
            return None
        except FAILURES as error:
            log.warning("the cache of optimized models cannot be read: %s", brief(error))
            return None
        try:
            return _unpacked(data, key, exported)
        except (ValueError, struct.error, DecodeError, pydantic.ValidationError) as error:
            log.warning("entry %s of the cache of optimized models is passed over: %s", key, brief(error))
            return None

    def save(self, key: str, result: Result) -> None:
        """Writes an entry; that it cannot be is only logged, and what holds files beside it is not kept."""
        if result.origin:
            return
        try:
            obstore.put(self._place.store, self._place.path(key), _packed(key, result))
        except FAILURES as error:
            log.warning("the cache of optimized models cannot be written: %s", brief(error))


def _packed(key: str, result: Result) -> bytes:
    report = result.report.model_dump_json().encode()
    model = result.model.SerializeToString() if result.report.changed else b""
    body = b"".join((key.encode(), _LENGTH.pack(len(report)), report, model))
    return _MAGIC + hashlib.sha256(body).digest() + body


def _unpacked(data: bytes, key: str, exported: onnx.ModelProto) -> Result:
    view = memoryview(data)
    start = len(_MAGIC) + hashlib.sha256().digest_size
    if bytes(view[: len(_MAGIC)]) != _MAGIC:
        raise ValueError("it is none of ours, or of another version")
    body = view[start:]
    if hashlib.sha256(body).digest() != bytes(view[len(_MAGIC) : start]):
        raise ValueError("it was cut short, or damaged")
    if bytes(body[: len(key)]) != key.encode():
        raise ValueError("it is for something else")
    (length,) = _LENGTH.unpack_from(body, len(key))
    begin = len(key) + _LENGTH.size
    report = Report.model_validate_json(bytes(body[begin : begin + length]))
    model = onnx.ModelProto.FromString(bytes(body[begin + length :])) if report.changed else exported
    return Result(model, report.model_copy(update={"cached": True}))
