"""A bias before a GELU goes into its operator.

    Gelu(x + b) = BiasGelu(x, b)        FastGelu(x + b) = FastGelu(x, b)

``b`` is one row of constants, as long as the last axis of ``x``.
"""

from __future__ import annotations

import onnx_ir as ir

from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.matching import MICROSOFT, enclosed, in_order, made_by, operands
from openclaw.graph.passes.symbolic import Shapes
from openclaw.graph.passes.values import constant

_WITH_BIAS = {"Gelu": "BiasGelu", "FastGelu": "FastGelu"}


class BiasGelu(NodePass):
    """Joins an addition and the GELU after it."""

    name = "bias-gelu"
    operators = frozenset(_WITH_BIAS)
    domain = MICROSOFT

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Looks at a GELU that has no bias yet."""
        return len(node.inputs) == 1 and _fuse(node, editor.shapes, editor)


def _fuse(node: ir.Node, shapes: Shapes, editor: Editor) -> bool:
    addition = made_by(node.inputs[0], "Add")
    if addition is None or not enclosed([addition], node):
        return False
    for source, row in operands(addition):
        array, dims = constant(row), shapes.dims(source)
        if array is None or array.ndim != 1 or dims is None or len(dims) < 1 or dims[-1] != array.size:
            continue
        new = editor.node(_WITH_BIAS[node.op_type], [source, row], like=node, domain=MICROSOFT)
        editor.replace(in_order([addition, node]), [new], results={node.outputs[0]: new.outputs[0]})
        return True
    return False
