"""Two Unsqueezes in a row are one.

    Unsqueeze(Unsqueeze(x, [1]), [2])  =  Unsqueeze(x, [1, 2])

The axes of the second are those of the result. Those of the first move up behind each of them. Where others read what
the first one makes, both stay.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.matching import axes, made_by
from openclaw.graph.passes.values import sole_reader

_AXES_ARE_INPUT = 13


class UnsqueezeChain(NodePass):
    """Joins Unsqueezes that follow each other."""

    name = "unsqueeze-chain"
    operators = frozenset({"Unsqueeze"})

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Joins ``node`` with the Unsqueeze that it reads, if there is one."""
        first = made_by(node.inputs[0], "Unsqueeze")
        if first is None or sole_reader(first.outputs[0]) is not node:
            return False
        dims = editor.shapes.dims(first.inputs[0])
        told = axes(first), axes(node)
        if dims is None or told[0] is None or told[1] is None:
            return False
        rank = len(dims) + len(told[0])
        inner = sorted(axis % rank for axis in told[0])
        rank += len(told[1])
        outer = {axis % rank for axis in told[1]}
        left = [axis for axis in range(rank) if axis not in outer]
        joined = sorted(outer | {left[axis] for axis in inner})
        if editor.opset < _AXES_ARE_INPUT:
            new = editor.node("Unsqueeze", [first.inputs[0]], attributes={"axes": joined}, like=node)
        else:
            array = editor.constant(np.array(joined, np.int64), f"{node.name or 'unsqueeze'}/axes", near=node)
            new = editor.node("Unsqueeze", [first.inputs[0], array], like=node)
        editor.replace([first, node], [new], results={node.outputs[0]: new.outputs[0]})
        return True
