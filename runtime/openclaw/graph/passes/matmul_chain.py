"""Two linear layers with nothing between them are one, if that is less work.

    (x W1 + b1) W2 + b2  =  x (W1 W2) + (b1 W2 + b2)

For W1 of m x k and W2 of k x n this takes m n multiplications for each row of x in place of m k + k n, so it is done
only where m n <= m k + k n: a bottleneck (k small) stays as it is. The products are computed in double precision. It
is not done where folded weights would leave the range of the type, or where one is so much smaller than the products
that made it that its digits are gone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.matching import enclosed, in_order, made_by, operands
from openclaw.graph.passes.values import constant

_LOST = 1e-3
"""What is left of a sum, relative to its terms, below which it has cancelled."""


class MatMulChain(NodePass):
    """Multiplies out chains of linear layers."""

    name = "matmul-chain"
    operators = frozenset({"MatMul"})

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Joins ``node`` with the linear layer that it reads, if there is one."""
        inner = [] if node.inputs[0] is None else [node.inputs[0].producer()]
        first, row = made_by(node.inputs[0], "MatMul"), None
        addition = made_by(node.inputs[0], "Add")
        if addition is not None:
            for value, added in operands(addition):
                first, row = made_by(value, "MatMul"), constant(added)
                if first is not None and row is not None:
                    inner = [first, addition]
                    break
        if first is None or (addition is not None and row is None):
            return False
        nodes = [one for one in inner if one is not None]
        left, right = constant(first.inputs[1]), constant(node.inputs[1])
        if left is None or right is None or not enclosed(nodes, node):
            return False
        weight = _product(left, right)
        if weight is None or (row is not None and row.shape != left.shape[1:]):
            return False
        bias = None if row is None else _product(row.reshape(1, -1), right, costly=True)
        if row is not None and bias is None:
            return False
        stem = node.name or "chain"
        product = editor.node(
            "MatMul", [first.inputs[0], editor.constant(weight, f"{stem}/weight", near=node)], like=node
        )
        new = [product]
        if bias is not None:
            added = editor.constant(bias.reshape(-1), f"{stem}/bias", near=node)
            new.append(editor.node("Add", [product.outputs[0], added], like=node))
        editor.replace(in_order([*nodes, node]), new, results={node.outputs[0]: new[-1].outputs[0]})
        return True


def _product(
    left: npt.NDArray[np.generic], right: npt.NDArray[np.generic], *, costly: bool = False
) -> npt.NDArray[np.generic] | None:
    """The product of two matrices, rounded once; None if it is more work, or digits were lost."""
    if left.ndim != 2 or right.ndim != 2 or left.dtype != right.dtype or left.dtype not in (np.float32, np.float64):
        return None
    rows, between, columns = left.shape[0], left.shape[1], right.shape[1]
    if not costly and rows * columns > rows * between + between * columns:
        return None
    a, b = left.astype(np.float64), right.astype(np.float64)
    with np.errstate(all="ignore"):
        exact, terms = a @ b, np.abs(a) @ np.abs(b)
        rounded = exact.astype(left.dtype)
    sound = np.isfinite(rounded).all() and np.isfinite(a).all() and np.isfinite(b).all()
    if not sound or bool(np.abs(exact).max(initial=0.0) < _LOST * terms.max(initial=0.0)):
        return None
    return rounded
