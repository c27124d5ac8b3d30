"""Layer normalization that an exporter wrote out in single operators is one operator.

With ``d = x - mean(x)``, over the last axis::

    d / sqrt(mean(d * d) + epsilon) * scale + bias  =  LayerNormalization(x, scale, bias, epsilon)

``d * d`` may be ``d ** 2``, the bias may be missing, and scale and bias may stand on either side. They must have the
length of the last axis. The operator is part of ONNX from opset 17 on.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.matching import axes, close, enclosed, in_order, integer, made_by, operands, scalar
from openclaw.graph.passes.symbolic import Shapes
from openclaw.graph.passes.values import producer_of


@dataclass(frozen=True)
class Normalized:
    """What was found: of what, with which epsilon, through which nodes."""

    source: ir.Value
    epsilon: float
    nodes: tuple[ir.Node, ...]


class LayerNorm(NodePass):
    """Finds layer normalization in single operators."""

    name = "layer-norm"
    opsets = range(17, 29)
    operators = frozenset({"Mul"})

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Starts at a multiplication by a scale."""
        return _fuse(node, editor.shapes, editor)


def _fuse(node: ir.Node, shapes: Shapes, editor: Editor) -> bool:
    for divided, scale in operands(node):
        found = _normalized(divided, shapes)
        if found is None or not _fits(scale, found.source, shapes):
            continue
        root, bias = node, None
        uses = tuple(node.outputs[0].uses())
        if len(uses) == 1 and uses[0].node.op_type == "Add" and not node.outputs[0].is_graph_output():
            added = uses[0].node.inputs[1 - uses[0].idx]
            if _fits(added, found.source, shapes) and uses[0].node.graph is node.graph:
                root, bias = uses[0].node, added
        inner = found.nodes if root is node else (*found.nodes, node)
        if not enclosed(inner, root):
            return False
        new = editor.node(
            "LayerNormalization",
            [found.source, scale] if bias is None else [found.source, scale, bias],
            attributes={"axis": -1, "epsilon": found.epsilon},
            like=root,
        )
        editor.replace(in_order([*inner, root]), [new], results={root.outputs[0]: new.outputs[0]})
        return True
    return False


def _fits(value: ir.Value | None, source: ir.Value, shapes: Shapes) -> bool:
    dims, around = shapes.dims(value), shapes.dims(source)
    return (
        dims is not None
        and around is not None
        and len(dims) == 1
        and len(around) > 0
        and isinstance(dims[0], int)
        and dims[0] == around[-1]
        and shapes.dtype(value) == shapes.dtype(source) == ir.DataType.FLOAT
    )


def _normalized(value: ir.Value, shapes: Shapes) -> Normalized | None:
    """Matches ``d / sqrt(mean(d * d) + epsilon)``."""
    division = made_by(value, "Div")
    root = None if division is None else made_by(division.inputs[1], "Sqrt")
    sum_ = None if root is None else made_by(root.inputs[0], "Add")
    if division is None or root is None or sum_ is None:
        return None
    for variance, constant in operands(sum_):
        epsilon, mean = scalar(constant), _mean(variance, shapes)
        squared = None if mean is None else producer_of(mean.inputs[0], "Pow", "Mul")
        if epsilon is None or mean is None or squared is None or epsilon < 0:
            continue
        centered = squared.inputs[0]
        power_of_two = squared.op_type == "Pow" and close(scalar(squared.inputs[1]), 2.0)
        if division.inputs[0] is not centered or not (power_of_two or squared.inputs[1] is centered):
            continue
        subtraction = made_by(centered, "Sub")
        average = None if subtraction is None else _mean(subtraction.inputs[1], shapes)
        if subtraction is None or average is None or average.inputs[0] is not subtraction.inputs[0]:
            continue
        source = subtraction.inputs[0]
        if source is not None:
            return Normalized(source, epsilon, (average, subtraction, squared, mean, sum_, root, division))
    return None


def _mean(value: ir.Value | None, shapes: Shapes) -> ir.Node | None:
    """The ReduceMean over the last axis alone, which it keeps, that makes ``value``."""
    node = made_by(value, "ReduceMean")
    if node is None or integer(node, "keepdims", 1) != 1:
        return None
    dims, over = shapes.dims(node.inputs[0]), axes(node)
    if over is None or len(over) != 1:
        return None
    return node if over[0] == -1 or (dims is not None and over[0] == len(dims) - 1) else None
