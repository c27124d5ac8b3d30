"""A size that is asked of a tensor is asked in one operator.

    Gather(Shape(x), [i])                    =  Shape(x, start=i, end=i + 1)
    Unsqueeze(Gather(Shape(x), i), [0])      =  Shape(x, start=i, end=i + 1)

Shape can begin and end in between from opset 15 on. It comes last: what others look for is written with Gather.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.matching import axes, in_order, integer, made_by
from openclaw.graph.passes.values import constant, input_of, sole_reader


class AxisSize(NodePass):
    """Joins Shape and what picks one size of it."""

    name = "axis-size"
    opsets = range(15, 29)
    operators = frozenset({"Gather", "Unsqueeze"})
    final = True

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Looks at what makes a vector of one size."""
        picking = node if node.op_type == "Gather" else made_by(node.inputs[0], "Gather")
        index = None if picking is None else constant(input_of(picking, 1))
        if picking is None or index is None or index.size != 1 or integer(picking, "axis", 0) not in (0, -1):
            return False
        whole = made_by(picking.inputs[0], "Shape")
        if whole is None or whole.attributes or whole.graph is not node.graph:
            return False
        if index.ndim != (1 if picking is node else 0) or (picking is not node and axes(node) not in ((0,), (-1,))):
            return False
        dims = editor.shapes.dims(whole.inputs[0])
        place = int(index.reshape(-1)[0])
        if dims is None or not -len(dims) <= place < len(dims):
            # Gather would fail, and Shape would not.
            return False
        # The operators that are joined go, unless others read them.
        old = [node]
        if picking is not node:
            if sole_reader(picking.outputs[0]) is not node:
                return False
            old = [picking, node]
        if sole_reader(whole.outputs[0]) is picking:
            old = [whole, *old]
        start = place % len(dims)
        return _replace(old, whole.inputs[0], {"start": start, "end": start + 1}, editor=editor)


def _replace(old: list[ir.Node], source: ir.Value | None, told: dict[str, int], *, editor: Editor) -> bool:
    node = old[-1]
    result, graph = node.outputs[0], node.graph
    known = next((one for one in _sizes(source, told) if one.graph is graph and in_order([node, one])[0] is one), None)
    if known is None or result.is_graph_output() or not isinstance(graph, ir.Graph):
        new = editor.node("Shape", [source], attributes=dict(told), like=node)
        editor.replace(old, [new], results={result: new.outputs[0]})
        return True
    result.replace_all_uses_with(known.outputs[0])
    read = [value for one in old for value in one.inputs if value is not None]
    graph.remove(old, safe=True)
    editor.forget(read)
    return True


def _sizes(source: ir.Value | None, told: dict[str, int]) -> Iterator[ir.Node]:
    """The operators that ask for the same size already."""
    for use in () if source is None else tuple(source.uses()):
        node = use.node
        if node.op_type == "Shape" and node.domain == "" and {key: integer(node, key, -1) for key in told} == told:
            yield node
