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
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.values import producer_of, rank_of, real_constant, sole_reader


class MatMulBatchNorm(NodePass):
    """Makes a Gemm of MatMul, Add and BatchNormalization."""

    name = "matmul-add-batchnorm"
    operators = frozenset({"BatchNormalization"})
    needs_shapes = True

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Folds ``node`` if a MatMul of a matrix with a constant one feeds it alone, directly or through an Add."""
        nodes = [node]
        before = producer_of(node.inputs[0], "Add", "Sub")
        if before is not None and sole_reader(before.outputs[0]) is node:
            nodes.insert(0, before)
        matmul = next(filter(None, (producer_of(value, "MatMul") for value in nodes[0].inputs)), None)
        if matmul is None or sole_reader(matmul.outputs[0]) is not nodes[0]:
            return False
        weight = real_constant(matmul.inputs[1])
        if weight is None or weight.ndim != 2 or rank_of(matmul.inputs[0]) != 2:
            return False
        whole = _composed(nodes, matmul.outputs[0], columns=weight.shape[1])
        return whole is not None and _fuse(matmul, nodes, whole, editor=editor)


def _composed(nodes: list[ir.Node], value: ir.Value, *, columns: int) -> Affine | None:
    """What ``nodes``, in a row, make of a matrix with so many columns, if that is a map of its columns."""
    whole: Affine | None = None
    for node in nodes:
        change = affine.of_node(node, value, rank=2)
        if change is None or not change.fits(columns):
            return None
        whole = change if whole is None else change.after(whole)
        value = node.outputs[0]
    return whole if whole is not None and whole.finite else None


def _fuse(matmul: ir.Node, nodes: list[ir.Node], whole: Affine, *, editor: Editor) -> bool:
    weight = real_constant(matmul.inputs[1])
    if weight is None:
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
