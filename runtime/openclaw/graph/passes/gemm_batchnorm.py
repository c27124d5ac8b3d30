"""Gemm, then BatchNormalization, as one Gemm.

    y = alpha x W + beta C,   z = s y + t   with s = gamma / sqrt(variance + epsilon), t = beta_n - mean s
    z = alpha x (W s) + (s beta C + t)

s is one factor for every column of W. C may be a number, a row, a column or a matrix: s and t broadcast against it.
onnxruntime folds this into convolutions only; onnxscript's rule reads no ``training_mode`` and rounds in 32 bits.
"""

from __future__ import annotations

import onnx_ir as ir

from openclaw.graph.passes import linear
from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.values import producer_of


class GemmBatchNorm(NodePass):
    """Folds a BatchNormalization into the Gemm before it."""

    name = "gemm-batchnorm"
    operators = frozenset({"BatchNormalization"})

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Folds ``node`` if a Gemm with constant weights feeds it alone."""
        return linear.fold_into(node, producer_of(node.inputs[0], "Gemm"), editor, rank=2)
