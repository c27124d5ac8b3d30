"""A model's inputs and outputs in the Open Inference Protocol's words.

Datatypes and shapes are those of the protocol's tensor metadata: ``FP32``, ``INT64``, ..., and -1 for a
dimension that is free. https://github.com/open-inference/open-inference-protocol
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from openclaw.errors import ModelInvalid

# BYTES are Python strings in object arrays, as onnxruntime takes and gives them; BF16 are the bits of
# ``graph.bfloat16``, told from UINT16 by the datatype alone.
NUMPY_OF: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}

_DATATYPE_OF_ONNX = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


class _NodeArg(Protocol):
    name: str
    type: str
    shape: list[int | str | None]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: its name, protocol datatype and shape (-1: any size)."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The numpy dtype that holds this tensor."""
        return NUMPY_OF[self.datatype]

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of ``shape`` may be given here."""
        if len(shape) != len(self.shape):
            return False
        # On every request's way; a generator costs more than the comparisons.
        for wanted, given in zip(self.shape, shape, strict=True):  # noqa: SIM110
            if given != wanted != -1:
                return False
        return True

    def blank(self, free: int = 1) -> npt.NDArray[np.generic]:
        """Zeros (empty strings) of this shape, with free dimensions of this size. What a warm-up is fed with."""
        shape = tuple(free if size == -1 else size for size in self.shape)
        if self.datatype == "BYTES":
            return np.full(shape, "", dtype=object)
        return np.zeros(shape, dtype=self.dtype)

    def __str__(self) -> str:
        return f"{self.name}: {self.datatype}[{','.join(str(size) for size in self.shape)}]"


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives, in the model's own order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @cached_property
    def inputs_by_name(self) -> Mapping[str, TensorSpec]:
        """The inputs, to be looked up."""
        return MappingProxyType({spec.name: spec for spec in self.inputs})


def read_signature(inputs: Iterable[_NodeArg], outputs: Iterable[_NodeArg]) -> Signature:
    """Translates onnxruntime's node arguments.

    Raises:
        ModelInvalid: an input or output is not a tensor that the protocol can carry.
    """
    return Signature(
        inputs=tuple(_spec(argument, "input") for argument in inputs),
        outputs=tuple(_spec(argument, "output") for argument in outputs),
    )


def _spec(argument: _NodeArg, kind: str) -> TensorSpec:
    datatype = _DATATYPE_OF_ONNX.get(argument.type)
    if datatype is None:
        advice = (
            "export the model so that it gives tensors (with skl2onnx: options={'zipmap': False})"
            if argument.type.startswith(("seq(", "map("))
            else f"cast it in the model to one of {', '.join(sorted(_DATATYPE_OF_ONNX))}"
        )
        raise ModelInvalid(f"{kind} {argument.name!r} is {argument.type}, which cannot be served; {advice}")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in argument.shape)
    return TensorSpec(argument.name, datatype, shape)
