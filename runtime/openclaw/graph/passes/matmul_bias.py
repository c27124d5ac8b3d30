"""A product of three dimensions or more and the bias behind it are one Gemm on flat rows.

    x W + b  =  Reshape(Gemm(Reshape(x, (-1, k)), W, b), (..., n))

onnxruntime joins MatMul and Add only for matrices; Gemm adds the bias while a result is still in registers, for two
Reshapes that move nothing. Whether that pays depends on shapes and machine, so measuring decides. One leading dimension
may be free, and is what is left of the rows; with more of them the shape is taken from x when the model runs, a 0 in
it for a dimension that is empty (which Reshape can be told from opset 14 on).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Attribute, Editor
from openclaw.graph.passes.flat_gemm import FLAT
from openclaw.graph.passes.matching import enclosed, in_order, made_by, operands
from openclaw.graph.passes.values import constant, real_constant


class MatMulBias(NodePass):
    """Flattens MatMul and Add into Gemm."""

    name = "matmul-bias"
    operators = frozenset({"Add"})
    speculative = True

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Rewrites one addition."""
        for value, row in operands(node):
            product, bias = made_by(value, "MatMul"), real_constant(row)
            weight = None if product is None else constant(product.inputs[1])
            if product is None or bias is None or weight is None or not enclosed([product], node):
                continue
            dims = editor.shapes.dims(product.inputs[0])
            if dims is None or len(dims) < 3 or weight.ndim != 2 or bias.shape != weight.shape[1:]:
                return False
            return self._flatten(node, product, row, editor=editor)
        return False

    def _flatten(self, node: ir.Node, product: ir.Node, row: ir.Value, *, editor: Editor) -> bool:
        source, weight = product.inputs[0], product.inputs[1]
        dims, matrix = editor.shapes.dims(source), constant(weight)
        if dims is None or matrix is None or weight is None or 0 in matrix.shape or 0 in dims:
            return False
        open_sizes = [dim for dim in dims[:-1] if not isinstance(dim, int)]
        if len(open_sizes) > 1 and editor.opset < 14:
            return False
        stem = node.name or "flat"
        width = np.array([-1, matrix.shape[0]], np.int64)
        joining = editor.node("Reshape", [source, editor.constant(width, f"{stem}/rows", near=node)], like=node)
        gemm = editor.node("Gemm", [joining.outputs[0], weight, row], like=node)
        gemm.meta[FLAT] = True
        new = [joining, gemm]
        attributes: dict[str, Attribute] = {}
        if len(open_sizes) <= 1:
            told = [dim if isinstance(dim, int) else -1 for dim in dims[:-1]]
            target = editor.constant(np.array([*told, matrix.shape[1]], np.int64), f"{stem}/shape", near=node)
        else:
            lead = editor.node("Shape", [source], like=node)
            first = editor.constant(np.arange(len(dims) - 1), f"{stem}/leading", near=node)
            leading = editor.node("Gather", [lead.outputs[0], first], attributes={"axis": 0}, like=node)
            last = editor.constant(np.array([matrix.shape[1]], np.int64), f"{stem}/width", near=node)
            whole = editor.node("Concat", [leading.outputs[0], last], attributes={"axis": 0}, like=node)
            new += [lead, leading, whole]
            target, attributes = whole.outputs[0], {"allowzero": 1}
        parting = editor.node("Reshape", [gemm.outputs[0], target], attributes=attributes, like=node)
        results = {node.outputs[0]: parting.outputs[0]}
        editor.replace(in_order([product, node]), [*new, parting], results=results)
        return True
