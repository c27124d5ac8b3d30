"""bfloat16 tensors into and out of an onnxruntime session.

``InferenceSession.run`` takes their bits as an ``OrtValue``, but cannot give them as an array: they are
read through the address of an ``OrtValue``, which strings cannot become.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from openclaw.errors import ModelInvalid
from openclaw.graph.signature import Signature

_Array = npt.NDArray[np.generic]
_ONNX_BFLOAT16 = 16
"""TensorProto.DataType.BFLOAT16 of onnx.proto."""


class Bfloat16Runner:
    """Runs a session some of whose tensors are BF16."""

    def __init__(self, session: Any, signature: Signature) -> None:
        """Raises ModelInvalid where onnxruntime's Python interface cannot carry the model's tensors."""
        self._session = session
        self._inputs = frozenset(spec.name for spec in signature.inputs if spec.datatype == "BF16")
        self._outputs = frozenset(spec.name for spec in signature.outputs if spec.datatype == "BF16")
        strings = [spec.name for spec in signature.inputs if spec.datatype == "BYTES"]
        if strings and self._outputs:
            raise ModelInvalid(
                f"input {strings[0]!r} is strings while output {min(self._outputs)!r} is bfloat16, which cannot be "
                "served together; cast the output in the model to float"
            )

    def run(self, names: Sequence[str], arrays: Mapping[str, _Array]) -> list[_Array]:
        """As ``InferenceSession.run``, with BF16 as bits."""
        # A value points at its array's memory, which must lie in order.
        feeds = {
            name: _value(np.ascontiguousarray(array)) if name in self._inputs else array
            for name, array in arrays.items()
        }
        if self._outputs.isdisjoint(names):
            results: list[_Array] = self._session.run(names, feeds)
            return results
        for name in feeds.keys() - self._inputs:
            feeds[name] = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(arrays[name]))
        return [_array(value) for value in self._session.run_with_ort_values(names, feeds)]


def uses_bfloat16(signature: Signature) -> bool:
    """Whether any tensor of the model is BF16."""
    return any(spec.datatype == "BF16" for spec in (*signature.inputs, *signature.outputs))


def _value(bits: _Array) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)


def _array(value: Any) -> _Array:
    if value.data_type() != "tensor(bfloat16)":
        result: _Array = value.numpy()
        return result
    shape = tuple(value.shape())
    if 0 in shape:
        return np.empty(shape, np.uint16)
    # Copied: the memory is the value's, which ends here.
    return (
        np.frombuffer((ctypes.c_uint16 * math.prod(shape)).from_address(value.data_ptr()), "<u2").reshape(shape).copy()
    )
