"""A linear layer on rows that were put under each other, and apart again, needs neither.

    Reshape(Gemm(Reshape(x, (-1, k)), W, b), (..., n))  =  x W + b

where the last Reshape restores what the first one joined. MatMul takes any number of leading dimensions and computes
the same product on the same memory, and the bias is free for what comes after (attention, GELU and normalization take
it in). With it go the nodes that compute the shapes. Passes that flatten on purpose mark their Gemm with ``FLAT``.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.dimensions import same_shape
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.matching import enclosed, in_order, integer, made_by
from openclaw.graph.passes.values import constant, input_of

FLAT = "openclaw.flat"
"""Mark, in ``meta`` of a Gemm, of one that is to stay flat."""


class FlatGemm(NodePass):
    """Turns flattened Gemms into MatMuls."""

    name = "flat-gemm"
    operators = frozenset({"Gemm"})

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Rewrites around one Gemm."""
        joining = made_by(node.inputs[0], "Reshape")
        uses = tuple(node.outputs[0].uses())
        if joining is None or len(uses) != 1 or node.outputs[0].is_graph_output() or FLAT in node.meta:
            return False
        parting = uses[0].node
        if parting.op_type != "Reshape" or parting.domain != "" or parting.graph is not node.graph:
            return False
        weight, bias, source = constant(node.inputs[1]), input_of(node, 2), joining.inputs[0]
        row = constant(bias)
        if weight is None or source is None or not _is_plain(node) or (bias is not None and row is None):
            return False
        turned = integer(node, "transB", 0) != 0
        inner, outer = weight.shape[::-1] if turned else weight.shape
        before, after = editor.shapes.dims(source), editor.shapes.dims(parting.outputs[0])
        if before is None or after is None or before[-1] != inner or not same_shape((*before[:-1], outer), after):
            return False
        if row is not None and row.shape not in ((outer,), (1, outer)):
            return False
        nodes = [node, parting]
        if enclosed([joining], node):
            nodes = [joining, *nodes]
        factor = node.inputs[1]
        if turned:
            factor = editor.constant(np.ascontiguousarray(weight.T), f"{node.name or 'gemm'}/turned", near=node)
        product = editor.node("MatMul", [source, factor], like=node)
        new = [product]
        if row is not None:
            flat = bias if row.ndim == 1 else editor.constant(row.reshape(-1), f"{node.name or 'gemm'}/row", near=node)
            new.append(editor.node("Add", [product.outputs[0], flat], like=node))
        editor.replace(in_order(nodes), new, results={parting.outputs[0]: new[-1].outputs[0]})
        return True


def _is_plain(node: ir.Node) -> bool:
    factors = [node.attributes[name].as_float() for name in ("alpha", "beta") if name in node.attributes]
    return integer(node, "transA", 0) == 0 and all(factor == 1.0 for factor in factors)
