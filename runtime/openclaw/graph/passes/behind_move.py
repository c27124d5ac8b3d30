"""A number that all of an image is scaled or shifted by goes behind what only moves the image's elements.

    Conv(Unsqueeze(x / 16))  =  Conv(Unsqueeze(x) / 16)

which is where a convolution takes it in (``affine_conv``). Gray pictures are exported so, that get their one channel in
the model, and pictures whose channels come last. It is done only before convolutions: nothing else gains by it.
"""

from __future__ import annotations

import onnx_ir as ir

from openclaw.graph.passes.affine import ARITHMETIC
from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.linear import convolved_by
from openclaw.graph.passes.matching import operands, scalar
from openclaw.graph.passes.values import sole_reader

_MOVES = frozenset({"Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


class BehindMove(NodePass):
    """Moves a scale or a shift by one number towards a convolution."""

    name = "behind-move"
    operators = ARITHMETIC

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Looks at what alone reads the scaled."""
        move = sole_reader(node.outputs[0])
        if move is None or move.domain != "" or move.op_type not in _MOVES or move.inputs[0] is not node.outputs[0]:
            return False
        source = next((value for value, number in operands(node) if scalar(number) is not None), None)
        if source is None or not convolved_by(move.outputs[0]):
            return False
        moved = editor.node(move.op_type, [source, *move.inputs[1:]], attributes=dict(move.attributes), like=move)
        inputs = [moved.outputs[0] if value is source else value for value in node.inputs]
        new = editor.node(node.op_type, inputs, like=node)
        moved.outputs[0].type, moved.outputs[0].shape = move.outputs[0].type, move.outputs[0].shape
        editor.replace([node, move], [moved, new], results={move.outputs[0]: new.outputs[0]})
        return True
