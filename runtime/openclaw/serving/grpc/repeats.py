"""Requests that differ from an earlier one in the numbers of their tensor alone, as nearly all of a client's do.

A serialized request ends with its raw tensors. Where one is as long as an earlier one and begins with the same
bytes up to the tensor's own, it says the same about the tensor's bytes, so nothing but those needs to be read.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from openclaw.serving.grpc import wire
from openclaw.serving.grpc.inference_pb2 import ModelInferRequest
from openclaw.serving.inference import InferRequest, Tensor

MAX_BYTES = 16 * 1024
"""Of a message; what can be saved does not grow with it."""
MAX_KNOWN = 64

_RAW_INPUTS = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER


class _Known(NamedTuple):
    head: bytes
    model: str
    version: str | None
    name: str
    datatype: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]


class Repeats:
    """Remembers requests with one tensor of numbers and no id, parameters or outputs."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}

    def read(self, message: bytes) -> tuple[str, str | None, InferRequest] | None:
        """The model, the version and the request of a message that repeats another; None where it does not."""
        known = self._known.get(len(message))
        if known is None or not message.startswith(known.head):
            return None
        array = np.frombuffer(message, known.dtype, offset=len(known.head)).reshape(known.shape)
        if not array.flags.aligned:
            array = array.copy()
        tensor = Tensor(known.name, known.datatype, array, True)
        return known.model, known.version, InferRequest((tensor,), None, None, True)

    def learn(self, message: bytes, *, model: str, version: str | None, request: InferRequest) -> None:
        """Remembers a message that was read as ``request``."""
        if len(message) > MAX_BYTES or len(request.inputs) != 1 or request.id or request.outputs or request.parameters:
            return
        (tensor,) = request.inputs
        # Any byte but 0 is true: such bytes are not the array's.
        if not tensor.binary or tensor.parameters or tensor.datatype in {"BYTES", "BOOL"} or not tensor.array.size:
            return
        cut = wire.split(message, _RAW_INPUTS)
        # Else the tensor is not last, or its length is written in more bytes than it needs.
        if cut is None or len(cut[1]) != 1 or wire.join(*cut, field=_RAW_INPUTS) != message:
            return
        head = message[: len(message) - len(cut[1][0])]
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[len(message)] = _Known(
            head, model, version, tensor.name, tensor.datatype, tensor.array.dtype, tensor.array.shape
        )
