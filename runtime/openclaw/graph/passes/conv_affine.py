"""Conv or ConvTranspose, then a map per channel, as one convolution.

    y = W * x + b,   z = s y + t       z = (s W) * x + (s b + t)

z may be spelled as Add, Sub, Mul or Div with a constant that varies along the channels alone, on either side
(c - y is s = -1, t = c; c / y is no such map), or as a BatchNormalization. Padding does not matter: z maps results.
onnxruntime does this for BatchNormalization, and for Mul and Add after a Conv; not for Sub and Div, nor for any of the
four after a ConvTranspose.
"""

from __future__ import annotations

import onnx_ir as ir

from openclaw.graph.passes import affine, linear
from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.values import producer_of, real_constant

_CONVOLUTIONS = ("Conv", "ConvTranspose")


class ConvBatchNorm(NodePass):
    """Folds a BatchNormalization into the convolution before it."""

    name = "conv-batchnorm"
    operators = frozenset({"BatchNormalization"})

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Folds ``node`` if a convolution with constant weights feeds it alone."""
        return _fold(node, node.inputs[0], editor)


class ConvAffine(NodePass):
    """Folds Add, Sub, Mul and Div with a constant per channel into the convolution before them."""

    name = "conv-affine"
    operators = affine.ARITHMETIC

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Folds ``node`` if a convolution with constant weights is one of its operands, and feeds it alone."""
        return any(_fold(node, value, editor) for value in node.inputs)


def _fold(node: ir.Node, value: ir.Value | None, editor: Editor) -> bool:
    before = producer_of(value, *_CONVOLUTIONS)
    weight = None if before is None else real_constant(before.inputs[1])
    return weight is not None and linear.fold_into(node, before, editor, rank=weight.ndim)
