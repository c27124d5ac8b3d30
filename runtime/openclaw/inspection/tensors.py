"""What a tensor is, as far as it takes memory: its datatype and its shape."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx import TensorProto, helper

Shape = tuple[int, ...]

_FEW_BITS: dict[int, int] = {
    TensorProto.UNDEFINED: 0,
    TensorProto.STRING: 0,
    TensorProto.INT2: 2,
    TensorProto.UINT2: 2,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
}

_SHOWN: dict[int, str] = {
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """What is known of a tensor: ONNX's number for its datatype, and its shape."""

    datatype: int
    shape: Shape

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes; of strings, which have no fixed size, none."""
        return stored(self.datatype, self.elements)


def stored(datatype: int, elements: int) -> int:
    """Bytes that so many numbers take; those of a few bits lie side by side, strings have no fixed size."""
    bits = _FEW_BITS.get(datatype)
    if bits is None:
        bits = helper.tensor_dtype_to_np_dtype(datatype).itemsize * 8
    return (elements * bits + 7) // 8


def shown(datatype: int) -> str:
    """The datatype as people call it: FP32, INT8, INT4, ..."""
    return _SHOWN.get(datatype) or str(TensorProto.DataType.Name(datatype))
