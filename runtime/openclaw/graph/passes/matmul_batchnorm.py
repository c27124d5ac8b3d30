"""MatMul, then Add, then BatchNormalization, as one Gemm.

    y = x W + b,   z = s y + t       z = x (W s) + (s b + t)

x must be a matrix: BatchNormalization's channels are axis 1, and only of a matrix are these the columns of W. Add may
be missing, and may be a Sub. onnxruntime makes a Gemm of MatMul and Add, and leaves the BatchNormalization behind it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes import affine, linear
from openclaw.graph.passes.affine import Affine
from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor, producer_of, rank_of, real_constant, sole_reader


class MatMulBatchNorm(NodePass):
    """Makes a Gemm of MatMul, Add and BatchNormalization."""

    name = "matmul-add-batchnorm"
    operators = frozenset({"BatchNormalization"})
    needs_shapes = True

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Folds ``node`` if a MatMul of a matrix with a constant one feeds it alone, directly or through an Add."""
        whole = affine.of_node(node, node.inputs[0], rank=2) if node.inputs[0] is not None else None
        if whole is None:
            return False
        nodes = [node]
        before = producer_of(node.inputs[0], "Add", "Sub")
        if before is not None and sole_reader(before.outputs[0]) is node:
            matmul = producer_of(before.inputs[0], "MatMul") or producer_of(before.inputs[1], "MatMul")
            added = None if matmul is None else affine.of_node(before, matmul.outputs[0], rank=2)
            if added is None:
                return False
            nodes.insert(0, before)
            whole = whole.after(added)
        else:
            matmul = producer_of(node.inputs[0], "MatMul")
        return matmul is not None and _fuse(matmul, nodes, whole, editor=editor)


def _fuse(matmul: ir.Node, nodes: list[ir.Node], whole: Affine, *, editor: Editor) -> bool:
    weight = real_constant(matmul.inputs[1])
    if weight is None or weight.ndim != 2 or rank_of(matmul.inputs[0]) != 2:
        return False
    if sole_reader(matmul.outputs[0]) is not nodes[0] or not whole.finite or not whole.fits(weight.shape[1]):
        return False
    scale, shift = whole.spread(weight.shape[1])
    with np.errstate(all="ignore"):
        matrix, bias = linear.round_to(weight * scale, weight.dtype), linear.round_to(shift, weight.dtype)
    if matrix is None or bias is None:
        return False
    name = (matmul.inputs[1].name if matmul.inputs[1] is not None else None) or "weight"
    gemm = editor.node(
        "Gemm",
        [
            matmul.inputs[0],
            editor.constant(matrix, f"{name}_folded", near=matmul),
            editor.constant(bias, f"{name}_bias", near=matmul),
        ],
        like=matmul,
    )
    editor.replace([matmul, *nodes], [gemm], results={nodes[-1].outputs[0]: gemm.outputs[0]})
    return True
