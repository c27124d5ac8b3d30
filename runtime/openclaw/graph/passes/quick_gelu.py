"""``x`` times its own sigmoid (SiLU, Swish) is one operator.

    x * sigmoid(x)  =  QuickGelu(x, alpha=1)

onnxruntime does the same whenever it loads a model: like ``conv-activation`` this is for the file alone, and last.
"""

from __future__ import annotations

import onnx_ir as ir

from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.matching import MICROSOFT
from openclaw.graph.passes.values import sole_reader


class QuickGelu(NodePass):
    """Joins Sigmoid and the product with what it was made from."""

    name = "quick-gelu"
    operators = frozenset({"Sigmoid"})
    final = True

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Joins one Sigmoid and the only node that reads its result."""
        source, product = node.inputs[0], sole_reader(node.outputs[0])
        if source is None or product is None or product.op_type != "Mul" or product.domain != "":
            return False
        if source not in product.inputs or editor.shapes.dtype(source) != ir.DataType.FLOAT:
            return False
        new = editor.node("QuickGelu", [source], attributes={"alpha": 1.0}, like=product, domain=MICROSOFT)
        editor.replace([node, product], [new], results={product.outputs[0]: new.outputs[0]})
        editor.model.graph.opset_imports.setdefault(MICROSOFT, 1)
        return True
