"""How much a node computes: multiply-accumulates, and in which precision.

Counted are convolutions, matrix products, attention and recurrent layers, whose factors grow with the product of three
sizes; everything else is in comparison small, and counts as nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

from openclaw.inspection.operators import attribute, kind, named
from openclaw.inspection.tensors import Shape, Tensor, shown

_WEIGHTS_AT = {"QLinearConv": 3, "QLinearConvTranspose": 3}
_EIGHT_BITS = named(
    "ConvInteger MatMulInteger MatMulInteger16 MatMulIntegerToFloat DynamicQuantizeMatMul QGemm QAttention"
    " DynamicQuantizeLSTM"
)


def multiply_accumulates(node: onnx.NodeProto, tensors: Mapping[str, Tensor]) -> int | None:
    """Of one run of the node; None where shapes that it takes to tell are not known."""
    count = {"convolution": _convolution, "matrix product": _product, "attention": _attention}.get(kind(node.op_type))
    if node.op_type in ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"):
        count = _recurrence
    if count is None:
        return 0
    try:
        return count(node, [tensors[name].shape if name else () for name in node.input], tensors[node.output[0]].shape)
    except (KeyError, IndexError):
        return None


def _convolution(node: onnx.NodeProto, inputs: list[Shape], output: Shape) -> int:
    weights = inputs[_WEIGHTS_AT.get(node.op_type, 1)]
    taken = inputs[0] if "Transpose" in node.op_type else output
    return math.prod(taken) * math.prod(weights[1:])


def _product(node: onnx.NodeProto, inputs: list[Shape], output: Shape) -> int | None:
    if node.op_type == "Einsum":
        return None
    inner = attribute(node, "K") if node.op_type == "MatMulNBits" else None
    return math.prod(output) * int(inner or inputs[0][-2 if attribute(node, "transA", 0) else -1])


def _attention(node: onnx.NodeProto, inputs: list[Shape], output: Shape) -> int | None:
    if node.op_type in ("Attention", "QAttention") and node.domain == "com.microsoft":
        batch, length, width = inputs[0]
        return batch * length * (width * inputs[1][-1] + 2 * length * output[-1])
    if node.op_type == "MultiHeadAttention" and len(inputs[0]) == 3 and len(inputs) > 1 and inputs[1]:
        batch, length, width = inputs[0]
        keys = inputs[1][1] if len(inputs[1]) == 3 else inputs[1][2]
        return 2 * batch * length * keys * width
    return None


def _recurrence(node: onnx.NodeProto, inputs: list[Shape], output: Shape) -> int:
    length, batch, _ = inputs[0]
    return length * batch * (math.prod(inputs[1]) + math.prod(inputs[2]))


def precision(node: onnx.NodeProto, tensors: Mapping[str, Tensor], makers: Mapping[str, onnx.NodeProto]) -> str:
    """What a node that counts computes in, as ``tensors.shown`` says it; ``makers``: which node makes a tensor.

    An operator between DequantizeLinear and QuantizeLinear is run on integers by every engine that can.
    """
    if node.op_type == "MatMulNBits":
        return f"INT{int(attribute(node, 'bits', 4))} weights"
    if node.op_type in _EIGHT_BITS or node.op_type.startswith("QLinear"):
        return "INT8"
    before = [makers[name].op_type for name in node.input[:2] if name in makers]
    if before == ["DequantizeLinear"] * 2:
        return "INT8"
    first = tensors.get(node.input[0]) if node.input else None
    return shown(first.datatype) if first else "unknown"
