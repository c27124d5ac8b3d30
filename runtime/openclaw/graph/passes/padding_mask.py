"""A mask of zeros and ones for each sentence goes into the attention as it is.

    attention_bias = (1 - mask) * c, the same for all heads and rows
        =  mask_index = mask, mask_filter_value = c

for a mask of zeros and ones, rows that are masked as a whole included: the operator adds ``c`` where the mask is 0.
That it holds nothing else is what the arithmetic says it is made for, and cannot be proved from the graph. So the mask
is read through a table of two numbers: one that holds a 2 is refused by Gather's bounds, not misread.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes.contract import GraphPass
from openclaw.graph.passes.editing import Attribute, Editor, input_of
from openclaw.graph.passes.matching import MICROSOFT, close, integer, made_by, operands, scalar
from openclaw.graph.passes.matching import axes as axes_of
from openclaw.graph.passes.symbolic import Shapes

_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)


class PaddingMask(GraphPass):
    """Gives padding masks to attention in place of what was computed from them."""

    name = "padding-mask"

    def rewrite(self, editor: Editor) -> int:
        """Looks at every Attention that has a mask added."""
        shapes = Shapes(editor.model)
        nodes = [
            node
            for graph in editor.model.graphs()
            for node in graph
            if node.op_type == "Attention" and node.domain == MICROSOFT
        ]
        return sum(_fuse(node, shapes, editor) for node in nodes if input_of(node, 5) is not None)


def _fuse(node: ir.Node, shapes: Shapes, editor: Editor) -> int:
    found = _padding(input_of(node, 5), shapes)
    source = shapes.dims(node.inputs[0])
    if found is None or source is None or input_of(node, 3) is not None or input_of(node, 4) is not None:
        return 0
    mask, low = found
    table = editor.constant(np.array([0, 1], np.int32), f"{node.name or 'attention'}/zero_one", near=node)
    reading = editor.node("Gather", [table, mask], attributes={"axis": 0}, like=node)
    attributes: dict[str, Attribute] = {
        "num_heads": integer(node, "num_heads", 0),
        "scale": node.attributes["scale"].as_float(),
        "mask_filter_value": low,
    }
    if "qkv_hidden_sizes" in node.attributes:
        attributes["qkv_hidden_sizes"] = node.attributes["qkv_hidden_sizes"].as_ints()
    new = editor.node(
        "Attention", [*node.inputs[:3], reading.outputs[0]], attributes=attributes, like=node, domain=MICROSOFT
    )
    editor.replace([node], [reading, new], results={node.outputs[0]: new.outputs[0]})
    return 1


def _padding(value: ir.Value | None, shapes: Shapes) -> tuple[ir.Value, float] | None:
    """The mask of shape (batch, length) behind an added one, and what it adds where it is 0."""
    widening = made_by(value, "Expand")
    product = made_by(value if widening is None else widening.inputs[0], "Mul")
    if product is None:
        return None
    for difference, number in operands(product):
        low, subtraction = scalar(number), made_by(difference, "Sub")
        if low is None or low > -1000 or subtraction is None or not close(scalar(subtraction.inputs[0]), 1.0):
            continue
        mask = _widened(subtraction.inputs[1])
        dims = shapes.dims(mask)
        if mask is not None and dims is not None and len(dims) == 2 and shapes.dtype(mask) in _INTEGERS:
            return mask, low
    return None


def _widened(value: ir.Value | None) -> ir.Value | None:
    """What was made a float and given axes 1 and 2, in any order."""
    over: list[int] = []
    while value is not None:
        node = value.producer()
        if node is None or node.domain != "" or node.op_type not in ("Cast", "Unsqueeze"):
            break
        if node.op_type == "Unsqueeze":
            given = axes_of(node)
            if given is None:
                return None
            over = [*given, *over]
        value = node.inputs[0]
    return value if over == [1, 2] else None
