"""Lossless rewrites of a graph: outputs stay equal within 1e-4 relative, for every input.

``LOSSLESS`` lists the passes in the order in which they run, ``FINAL`` those that come after them where a model is to
be saved as it is; :func:`apply` runs them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir

from openclaw.graph.passes.affine_conv import AffineConv, BatchNormConv
from openclaw.graph.passes.attention import Attention
from openclaw.graph.passes.attention_projection import AttentionProjection
from openclaw.graph.passes.axis_size import AxisSize
from openclaw.graph.passes.behind_move import BehindMove
from openclaw.graph.passes.bias_gelu import BiasGelu
from openclaw.graph.passes.common_subexpressions import CommonSubexpressions
from openclaw.graph.passes.constant_folding import ConstantFolding
from openclaw.graph.passes.contract import GraphPass
from openclaw.graph.passes.conv_activation import ConvActivation
from openclaw.graph.passes.conv_affine import ConvAffine, ConvBatchNorm
from openclaw.graph.passes.conv_chain import ConvChain
from openclaw.graph.passes.conv_shared_batchnorm import ConvSharedBatchNorm
from openclaw.graph.passes.conv_siblings import ConvSiblings
from openclaw.graph.passes.dead_code import DeadCode
from openclaw.graph.passes.flat_gemm import FlatGemm
from openclaw.graph.passes.gelu import Gelu
from openclaw.graph.passes.gemm_batchnorm import GemmBatchNorm
from openclaw.graph.passes.hard_swish import HardSwish
from openclaw.graph.passes.layer_norm import LayerNorm
from openclaw.graph.passes.matmul_batchnorm import MatMulBatchNorm
from openclaw.graph.passes.matmul_bias import MatMulBias
from openclaw.graph.passes.matmul_chain import MatMulChain
from openclaw.graph.passes.matmul_siblings import MatMulSiblings
from openclaw.graph.passes.no_operation import NoOperation
from openclaw.graph.passes.normalized_difference import NormalizedDifference
from openclaw.graph.passes.quick_gelu import QuickGelu
from openclaw.graph.passes.residual_bias import ResidualBias
from openclaw.graph.passes.running import PassFailed, chosen, run
from openclaw.graph.passes.shape_arithmetic import ShapeArithmetic
from openclaw.graph.passes.skip_layer_norm import SkipLayerNorm
from openclaw.graph.passes.transpose_chain import TransposeChain
from openclaw.graph.passes.unsqueeze_chain import UnsqueezeChain

__all__ = ["FINAL", "LOSSLESS", "PassFailed", "apply"]

_CLEAN_UP: tuple[GraphPass, ...] = (
    NoOperation(),
    TransposeChain(),
    UnsqueezeChain(),
    ConstantFolding(),
    ShapeArithmetic(),
    CommonSubexpressions(),
    DeadCode(),
)

_CONVOLUTIONS: tuple[GraphPass, ...] = (
    ConvBatchNorm(),
    ConvAffine(),
    GemmBatchNorm(),
    MatMulBatchNorm(),
    BatchNormConv(),
    BehindMove(),
    AffineConv(),
    ConvChain(),
    HardSwish(),
    ConvSharedBatchNorm(),
    ConvSiblings(),
)

# What is found inside must be one operator before what is around it can be.
_TRANSFORMERS: tuple[GraphPass, ...] = (
    FlatGemm(),
    LayerNorm(),
    Gelu(),
    Attention(),
    AttentionProjection(),
    SkipLayerNorm(),
    BiasGelu(),
)

_MATRICES: tuple[GraphPass, ...] = (
    MatMulChain(),
    MatMulSiblings(),
    MatMulBias(),
)

LOSSLESS: tuple[GraphPass, ...] = (*_CLEAN_UP, *_CONVOLUTIONS, *_TRANSFORMERS, *_MATRICES)
"""The passes, in order. Those that are ``speculative`` run only where ``only`` names them."""

FINAL: tuple[GraphPass, ...] = (
    ConvActivation(),
    QuickGelu(),
    AxisSize(),
    ResidualBias(),
    NormalizedDifference(),
)
"""What is done in the saved file alone: what onnxruntime joins at every load, and what others look for apart."""


def apply(
    model: ir.Model,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    only: Collection[str] | None = None,
    final: bool = False,
) -> Mapping[str, int]:
    """Rewrites a model in place, to a fixed point.

    Args:
        model: changed in place. Its inputs and outputs keep names, types and order.
        shapes: sizes of inputs by name, if the model is to run with these alone.
        only: names of passes; without it all of ``LOSSLESS`` but the speculative ones.
        final: whether those of ``FINAL`` come after them.

    Returns:
        How often each pass rewrote; those that did nothing are left out.

    Raises:
        ConfigInvalid: ``only`` or ``shapes`` do not fit.
        onnx_ir.passes.PreconditionError: the model is not sound to begin with; it is unchanged.
        PassFailed: a pass failed. The model is spoiled: start again from the original without ``error.name``.
    """
    return run(model, chosen((*LOSSLESS, *FINAL), only, final=final), shapes=shapes)
