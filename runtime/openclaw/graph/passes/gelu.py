"""The Gaussian error linear unit that an exporter wrote out in single operators is one operator.

Exact, and approximated by tanh::

    x * 0.5 * (1 + erf(x / sqrt(2)))                              =  Gelu(x)
    x * 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)))  =  FastGelu(x)

The factors may be multiplied in any order and grouping, and ``x / sqrt(2)`` may be ``x * sqrt(1/2)``. Constants must
be those numbers as float32 rounds them. The operators are onnxruntime's, which all its builds for CPUs have.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.matching import MICROSOFT, close, enclosed, in_order, made_by, operands, scalar
from openclaw.graph.passes.symbolic import Shapes
from openclaw.graph.passes.values import producer_of

Factors = tuple[float, list[ir.Value], list[ir.Node]]


class Gelu(NodePass):
    """Finds both forms of GELU in single operators."""

    name = "gelu"
    operators = frozenset({"Erf", "Tanh"})

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Starts at an Erf or a Tanh."""
        return _fuse(node, editor.shapes, editor)


def _fuse(curve: ir.Node, shapes: Shapes, editor: Editor) -> bool:
    if shapes.dtype(curve.outputs[0]) != ir.DataType.FLOAT:
        return False
    found = _argument(curve)
    shifted = _only_reader(curve, "Add")
    if found is None or shifted is None or not any(close(scalar(value), 1.0) for value in shifted.inputs):
        return False
    source, inner = found
    root = shifted
    # Products are followed down for as long as the next multiplication is the only one to read them.
    while (further := _only_reader(root, "Mul")) is not None:
        factor, values, nodes = _factors(further.outputs[0], whole=True)
        values = [value for value in values if value is not shifted.outputs[0]]
        if close(factor, 0.5) and len(values) == 1 and values[0] is source:
            inner = [*inner, curve, shifted, *(node for node in nodes if node is not further)]
            return _replace(
                further, inner, source, operator="Gelu" if curve.op_type == "Erf" else "FastGelu", editor=editor
            )
        root = further
    return False


def _replace(root: ir.Node, inner: list[ir.Node], source: ir.Value, *, operator: str, editor: Editor) -> bool:
    inner = list(dict.fromkeys(inner))
    if not enclosed(inner, root):
        return False
    new = editor.node(operator, [source], like=root, domain=MICROSOFT)
    editor.replace(in_order([*inner, root]), [new], results={root.outputs[0]: new.outputs[0]})
    editor.model.graph.opset_imports.setdefault(MICROSOFT, 1)
    return True


def _only_reader(node: ir.Node, operator: str) -> ir.Node | None:
    value = node.outputs[0]
    uses = tuple(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    reader = uses[0].node
    return reader if reader.op_type == operator and reader.domain == "" and reader.graph is node.graph else None


def _factors(value: ir.Value | None, *, whole: bool = False) -> Factors:
    """A product taken apart: its constant factor, the other factors, and the multiplications and divisions.

    What others read too is not taken apart, but for the ``whole`` product.
    """
    node = producer_of(value, "Mul", "Div")
    if value is None or node is None or not (whole or (len(value.uses()) == 1 and not value.is_graph_output())):
        return 1.0, [] if value is None else [value], []
    left, right = node.inputs
    number = scalar(right)
    if node.op_type == "Div":
        if not number:
            return 1.0, [value], []
        factor, values, nodes = _factors(left)
        return factor / number, values, [*nodes, node]
    if number is not None:
        factor, values, nodes = _factors(left)
        return factor * number, values, [*nodes, node]
    if (number := scalar(left)) is not None:
        factor, values, nodes = _factors(right)
        return factor * number, values, [*nodes, node]
    first, second = _factors(left), _factors(right)
    return first[0] * second[0], first[1] + second[1], [*first[2], *second[2], node]


def _argument(curve: ir.Node) -> tuple[ir.Value, list[ir.Node]] | None:
    """``x`` and the nodes between it and the curve, if what the curve is taken of is GELU's."""
    factor, values, nodes = _factors(curve.inputs[0])
    if curve.op_type == "Erf":
        return (values[0], nodes) if len(values) == 1 and close(factor, math.sqrt(0.5)) else None
    if not close(factor, math.sqrt(2 / math.pi)):
        return None
    for value in values:
        addition = made_by(value, "Add")
        if addition is None:
            continue
        rest = [other for other in values if other is not value]
        for plain, cubic in operands(addition):
            weight, powers, inside = _powers(cubic)
            if not close(weight, 0.044715):
                continue
            if not rest and powers == [plain] * 3:
                return plain, [*nodes, *inside, addition]
            if len(rest) == 1 and close(scalar(plain), 1.0) and powers == rest * 2:
                return rest[0], [*nodes, *inside, addition]
    return None


def _powers(value: ir.Value) -> Factors:
    """As ``_factors``, with ``x ** 3`` as three factors ``x``."""
    factor, values, nodes = _factors(value)
    apart: list[ir.Value] = []
    for one in values:
        power = made_by(one, "Pow")
        exponent = None if power is None else scalar(power.inputs[1])
        if power is not None and power.inputs[0] is not None and exponent in (2.0, 3.0):
            apart += [power.inputs[0]] * int(exponent)
            nodes = [power, *nodes]
        else:
            apart.append(one)
    return factor, apart, nodes
