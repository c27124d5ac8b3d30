"""Shapes of what onnxruntime's own operators (domain ``com.microsoft``) make: those that fusion and quantization leave.

https://github.com/microsoft/onnxruntime, docs/ContribOperators.md. An operator that is not here makes tensors of
unknown shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest

import onnx
from onnx import TensorProto

from openclaw.inspection.operators import attribute, named
from openclaw.inspection.tensors import Shape, Tensor

Standard = Callable[[onnx.NodeProto], Mapping[str, Tensor]]
Inputs = Sequence[Tensor | None]

_AS_FIRST = named(
    "Gelu FastGelu BiasGelu QuickGelu BiasSoftmax BiasDropout SkipLayerNormalization SkipSimplifiedLayerNormalization"
    " MultiHeadAttention GroupQueryAttention RotaryEmbedding QLinearSigmoid QLinearLeakyRelu QLinearSoftmax BiasAdd"
    " QuantizeLinear DequantizeLinear GroupNorm SkipGroupNorm"
)
_AS_STANDARD = {"FusedConv": ("Conv", 3), "FusedGemm": ("Gemm", 3), "QLinearAveragePool": ("AveragePool", 1)}
_PRODUCTS = {
    "FusedMatMul": 1,
    "TransposeMatMul": 1,
    "DynamicQuantizeMatMul": 1,
    "MatMulIntegerToFloat": 1,
    "QGemm": 3,
}
"""And where their second factor stands."""
_BINARY = frozenset(("QLinearAdd", "QLinearMul"))


def outputs(node: onnx.NodeProto, inputs: Inputs, standard: Standard) -> Mapping[str, Tensor]:
    """What is known of a node's outputs; `standard` infers a node of ONNX's own."""
    if node.op_type in _AS_STANDARD:
        return standard(_standard_form(node))
    if not inputs or inputs[0] is None:
        return {}
    shape = _shape(node, inputs, inputs[0])
    if shape is None:
        return {}
    return {node.output[0]: Tensor(_datatype(node, inputs), shape)}


def _standard_form(node: onnx.NodeProto) -> onnx.NodeProto:
    """The node as the standard operator that it extends."""
    operator, count = _AS_STANDARD[node.op_type]
    form = onnx.NodeProto(op_type=operator, input=node.input[:count], output=node.output[:1], name=node.name)
    known = onnx.defs.get_schema(operator).attributes
    form.attribute.extend(each for each in node.attribute if each.name in known)
    return form


def _datatype(node: onnx.NodeProto, inputs: Inputs) -> int:
    if node.op_type == "QuantizeLinear":
        zero = inputs[2] if len(inputs) > 2 else None
        return int(zero.datatype) if zero else int(TensorProto.UINT8)
    if node.op_type == "DequantizeLinear":
        return int(inputs[1].datatype) if inputs[1] else int(TensorProto.FLOAT)
    if node.op_type == "EmbedLayerNormalization":
        return int(inputs[2].datatype) if inputs[2] else int(TensorProto.FLOAT)
    if node.op_type in ("MatMulIntegerToFloat", "QAttention"):
        return int(TensorProto.FLOAT)
    return int(inputs[0].datatype) if inputs[0] else int(TensorProto.FLOAT)


def _shape(node: onnx.NodeProto, inputs: Inputs, first: Tensor) -> Shape | None:
    operator = node.op_type
    if operator in _AS_FIRST:
        return first.shape
    if operator in _PRODUCTS:
        second = inputs[_PRODUCTS[operator]]
        return None if second is None else _product(node, first.shape, second.shape)
    if operator in _BINARY:
        return None if inputs[3] is None else broadcast(first.shape, inputs[3].shape)
    special = _SPECIAL.get(operator)
    return special(node, inputs, first) if special else None


def _product(node: onnx.NodeProto, left: Shape, right: Shape) -> Shape | None:
    """Of matrices in the last two dimensions, either of which may be turned."""
    if len(left) < 2 or len(right) < 2:
        return None
    rows = left[-1] if attribute(node, "transA", 0) else left[-2]
    columns = right[-2] if attribute(node, "transB", 0) else right[-1]
    batch = broadcast(left[:-2], right[:-2])
    return None if batch is None else (*batch, rows, columns)


def broadcast(one: Shape, other: Shape) -> Shape | None:
    """The shape of what is computed element by element; None where the two do not fit."""
    found = []
    for a, b in zip_longest(reversed(one), reversed(other), fillvalue=1):
        if a != b and 1 not in (a, b):
            return None
        found.append(b if a == 1 else a)
    return tuple(reversed(found))


def _attention(node: onnx.NodeProto, inputs: Inputs, first: Tensor) -> Shape | None:
    weights = inputs[1]
    widths = attribute(node, "qkv_hidden_sizes")
    if len(first.shape) != 3 or (weights is None and not widths):
        return None
    return (*first.shape[:2], int(widths[2]) if widths else (weights.shape[-1] // 3 if weights else 0))


def _embedded(node: onnx.NodeProto, inputs: Inputs, first: Tensor) -> Shape | None:
    words = inputs[2]
    return None if words is None else (*first.shape, words.shape[-1])


def _few_bits(node: onnx.NodeProto, inputs: Inputs, first: Tensor) -> Shape | None:
    return (*first.shape[:-1], int(attribute(node, "N", 0)))


def _pooled(node: onnx.NodeProto, inputs: Inputs, first: Tensor) -> Shape | None:
    count = len(first.shape) - 2
    if attribute(node, "channels_last", 0):
        return (first.shape[0], *([1] * count), first.shape[-1])
    return (*first.shape[:2], *([1] * count))


def _recurrent(node: onnx.NodeProto, inputs: Inputs, first: Tensor) -> Shape | None:
    length, batch, _ = first.shape
    ways = 2 if attribute(node, "direction", b"forward") == b"bidirectional" else 1
    return (length, ways, batch, int(attribute(node, "hidden_size", 0)))


_SPECIAL: dict[str, Callable[[onnx.NodeProto, Inputs, Tensor], Shape | None]] = {
    "Attention": _attention,
    "QAttention": _attention,
    "EmbedLayerNormalization": _embedded,
    "MatMulNBits": _few_bits,
    "QLinearGlobalAveragePool": _pooled,
    "DynamicQuantizeLSTM": _recurrent,
}
