"""What operators are for: a kind for each, and which of them do the work of several.

Names are those of ONNX (https://onnx.ai/onnx/operators/) and of onnxruntime's own domain ``com.microsoft``
(https://github.com/microsoft/onnxruntime, docs/ContribOperators.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
from onnx import helper


def named(words: str) -> frozenset[str]:
    """A set of names out of a line of them."""
    return frozenset(words.split())


KINDS: dict[str, frozenset[str]] = {
    "convolution": named(
        "Conv ConvTranspose DeformConv FusedConv NhwcFusedConv NhwcConv QLinearConv QLinearConvTranspose ConvInteger"
        " ConvTransposeWithDynamicPads"
    ),
    "matrix product": named(
        "MatMul Gemm Einsum FusedMatMul FusedGemm TransposeMatMul FusedMatMulActivation GemmFastGelu GemmFloat8"
        " MatMulInteger MatMulInteger16 MatMulIntegerToFloat DynamicQuantizeMatMul QLinearMatMul QGemm MatMulNBits"
        " MatMulBnb4 MatMulFpQ4"
    ),
    "attention": named(
        "Attention MultiHeadAttention GroupQueryAttention QAttention PackedAttention PackedMultiHeadAttention"
        " DecoderMaskedMultiHeadAttention LongformerAttention SparseAttention RotaryEmbedding FlexAttention"
    ),
    "recurrence": named("LSTM GRU RNN DynamicQuantizeLSTM AttnLSTM"),
    "normalization": named(
        "BatchNormalization LayerNormalization InstanceNormalization GroupNormalization GroupNorm SkipGroupNorm"
        " RMSNormalization SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization"
        " EmbedLayerNormalization LpNormalization MeanVarianceNormalization LRN Softmax LogSoftmax BiasSoftmax"
        " QLinearSoftmax"
    ),
    "activation": named(
        "Relu LeakyRelu PRelu Elu Selu Celu Sigmoid HardSigmoid HardSwish Swish Mish Tanh Gelu FastGelu BiasGelu"
        " QuickGelu Softplus Softsign ThresholdedRelu Clip QLinearSigmoid QLinearLeakyRelu BiasSplitGelu"
    ),
    "pooling and reduction": named(
        "MaxPool AveragePool GlobalAveragePool GlobalMaxPool LpPool GlobalLpPool QLinearAveragePool"
        " QLinearGlobalAveragePool NhwcMaxPool ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2"
        " ReduceLogSum ReduceLogSumExp ReduceSumSquare QLinearReduceMean ArgMax ArgMin TopK CumSum"
    ),
    "layout": named(
        "Reshape Transpose Concat Split Slice Squeeze Unsqueeze Flatten Gather GatherElements GatherND Expand Tile Pad"
        " Resize Upsample DepthToSpace SpaceToDepth ScatterElements ScatterND Identity QLinearConcat OneHot"
    ),
    "shape and constants": named("Shape Size Constant ConstantOfShape Range EyeLike"),
    "quantization": named("QuantizeLinear DequantizeLinear DynamicQuantizeLinear Cast CastLike"),
    "control": named("If Loop Scan SequenceMap"),
}
"""What is in none of them is arithmetic."""

ARITHMETIC = "arithmetic"

_KIND_OF = {operator: kind for kind, operators in KINDS.items() for operator in operators}

FUSED: dict[str, str] = {
    "FusedConv": "Conv and its activation, and perhaps a sum",
    "NhwcFusedConv": "Conv and its activation, channels last",
    "FusedMatMul": "MatMul with transposed or scaled factors",
    "FusedGemm": "Gemm and its activation",
    "TransposeMatMul": "MatMul with transposed factors",
    "GemmFastGelu": "MatMul, bias and GELU",
    "Gelu": "Div, Erf, Add, Mul",
    "FastGelu": "GELU approximated by tanh, and perhaps its bias",
    "BiasGelu": "bias and GELU",
    "QuickGelu": "Sigmoid and Mul",
    "Swish": "Sigmoid and Mul",
    "HardSwish": "Add, Clip, Mul, Div",
    "Mish": "Softplus, Tanh, Mul",
    "BiasSoftmax": "mask or bias, and Softmax",
    "LayerNormalization": "ReduceMean, Sub, Pow, Sqrt, Div, Mul, Add",
    "SimplifiedLayerNormalization": "normalization by the root mean square",
    "RMSNormalization": "normalization by the root mean square",
    "GroupNormalization": "normalization by groups of channels",
    "GroupNorm": "normalization by groups of channels",
    "SkipLayerNormalization": "sum and layer normalization",
    "SkipSimplifiedLayerNormalization": "sum and normalization by the root mean square",
    "EmbedLayerNormalization": "embeddings, their sum, layer normalization",
    "Attention": "attention, in com.microsoft with its projections",
    "MultiHeadAttention": "attention between projections",
    "GroupQueryAttention": "attention with shared keys and values",
    "RotaryEmbedding": "rotation by position",
    "QAttention": "quantized projections and attention",
    "QLinearConv": "DequantizeLinear, Conv, QuantizeLinear",
    "QLinearMatMul": "DequantizeLinear, MatMul, QuantizeLinear",
    "QGemm": "DequantizeLinear, Gemm, QuantizeLinear",
    "DynamicQuantizeMatMul": "DynamicQuantizeLinear, MatMulInteger, scale, bias",
    "MatMulIntegerToFloat": "MatMulInteger, scale, bias",
    "DynamicQuantizeLSTM": "LSTM with weights in 8 bits",
    "MatMulNBits": "MatMul with weights in few bits",
}
"""Operators that stand where an exporter writes several, and what they stand for."""


def kind(operator: str) -> str:
    """Which of ``KINDS`` an operator is, or ``ARITHMETIC``."""
    return _KIND_OF.get(operator, "quantization" if operator.startswith("QLinear") else ARITHMETIC)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute, as Python has it."""
    for each in node.attribute:
        if each.name == name:
            return helper.get_attribute_value(each)
    return default


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside a node: branches, bodies of loops."""
    for each in node.attribute:
        if each.type == onnx.AttributeProto.GRAPH:
            yield each.g
        elif each.type == onnx.AttributeProto.GRAPHS:
            yield from each.graphs


def every_node(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph, and those of all graphs inside it."""
    for node in graph.node:
        yield node
        for body in bodies(node):
            yield from every_node(body)


def every_weight(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The weights of a graph and of all graphs inside it, whether they are initializers or nodes of their own."""
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (each.t for each in node.attribute if each.type == onnx.AttributeProto.TENSOR)
        for body in bodies(node):
            yield from every_weight(body)
