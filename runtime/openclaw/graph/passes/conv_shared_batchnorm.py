"""Conv that several read, one of them a BatchNormalization: a second Conv takes the BatchNormalization in.

    y = W * x + b,   z = s y + t   ->   y = W * x + b,   z = (s W) * x + (s b + t)

This computes the convolution twice to save one pass over its result, so it pays only for a cheap convolution (few
taps times few inputs) with a large result. The weights are stored twice. Speculative: measure it.
"""

from __future__ import annotations

import onnx_ir as ir

from openclaw.graph.passes import affine, linear
from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.values import producer_of, real_constant, sole_reader


class ConvSharedBatchNorm(NodePass):
    """Doubles a Conv for the BatchNormalization that is one of its readers."""

    name = "conv-shared-batchnorm"
    operators = frozenset({"BatchNormalization"})
    speculative = True

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Doubles the Conv that feeds ``node`` and others, in the same graph."""
        value = node.inputs[0]
        conv = producer_of(value, "Conv")
        # A Conv for this reader alone is another pass's.
        if value is None or conv is None or conv.graph is not node.graph or sole_reader(value) is not None:
            return False
        weight = real_constant(conv.inputs[1])
        change = None if weight is None else affine.of_node(node, value, rank=weight.ndim)
        layer = None if change is None else linear.read(conv)
        folded = None if layer is None or change is None else layer.then(change)
        fused = None if folded is None else folded.build(editor, conv.inputs[0])
        if fused is None:
            return False
        fused.name = editor.name(node.name or "Conv")
        editor.replace([node], [fused], results={node.outputs[0]: fused.outputs[0]})
        return True
