"""Lossless rewrites of a graph: outputs stay equal within 1e-4 relative, for every input.

``LOSSLESS`` lists the passes in the order in which they run; :func:`apply` runs them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir

from openclaw.graph.passes.affine_conv import AffineConv, BatchNormConv
from openclaw.graph.passes.contract import GraphPass
from openclaw.graph.passes.conv_affine import ConvAffine, ConvBatchNorm
from openclaw.graph.passes.conv_chain import ConvChain
from openclaw.graph.passes.conv_shared_batchnorm import ConvSharedBatchNorm
from openclaw.graph.passes.conv_siblings import ConvSiblings
from openclaw.graph.passes.gemm_batchnorm import GemmBatchNorm
from openclaw.graph.passes.matmul_batchnorm import MatMulBatchNorm
from openclaw.graph.passes.running import PassFailed, chosen, run

__all__ = ["LOSSLESS", "PassFailed", "apply"]

_CONVOLUTIONS: tuple[GraphPass, ...] = (
    ConvBatchNorm(),
    ConvAffine(),
    GemmBatchNorm(),
    MatMulBatchNorm(),
    BatchNormConv(),
    AffineConv(),
    ConvChain(),
    ConvSharedBatchNorm(),
    ConvSiblings(),
)

LOSSLESS: tuple[GraphPass, ...] = _CONVOLUTIONS
"""All passes, in order. Those that are ``speculative`` run only where ``only`` names them."""


def apply(
    model: ir.Model, *, shapes: Mapping[str, Sequence[int]] | None = None, only: Collection[str] | None = None
) -> Mapping[str, int]:
    """Rewrites a model in place, to a fixed point.

    Args:
        model: changed in place. Its inputs and outputs keep names, types and order.
        shapes: sizes of inputs by name, if the model is to run with these alone.
        only: names of passes; without it all but the speculative ones.

    Returns:
        How often each pass rewrote; those that did nothing are left out.

    Raises:
        ConfigInvalid: ``only`` or ``shapes`` do not fit.
        onnx_ir.passes.PreconditionError: the model is not sound to begin with; it is unchanged.
        PassFailed: a pass failed. The model is spoiled: start again from the original without ``error.name``.
    """
    return run(model, chosen(LOSSLESS, only), shapes=shapes)
