"""Two Convs with nothing in between, one of them 1x1, as one Conv, where that multiplies less.

    u = A * x + a,   y = B * u + b   ->   y = (B o A) * x + (B a + b)

If B is 1x1 with stride 1 it maps each position of u for itself: (B o A)[o, i, tap] = sum_m B[o, m] A[m, i, tap], with
A's strides, pads and dilations. If A is 1x1 with stride 1: (B o A)[o, i, tap] = sum_m B[o, m, tap] A[m, i], with B's,
and a is summed over B's taps; there B's padding holds zeros of u, not A 0 + a, so a must be 0 or B must not pad.

Per position of the result A and B multiply (middle x inputs x taps of A) + (outputs x middle x taps of B) times, and
B o A does (outputs x inputs x taps): a bottleneck (few in the middle) is cheaper as it is, and stays.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes import linear
from openclaw.graph.passes.affine import Exact
from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.values import producer_of, real_constant, sole_reader


class ConvChain(NodePass):
    """Multiplies the weights of a 1x1 Conv with those of the Conv before or after it."""

    name = "conv-chain"
    operators = frozenset({"Conv"})

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Joins ``node`` with the Conv that feeds it alone."""
        before = producer_of(node.inputs[0], "Conv")
        if before is None or sole_reader(before.outputs[0]) is not node:
            return False
        if not (_pointwise(node) or (_pointwise(before) and _sees_no_bias_at_borders(before, node))):
            return False
        first, second = linear.read(before), linear.read(node)
        joined = None if first is None or second is None else _join(first, second)
        fused = None if joined is None else joined.build(editor, before.inputs[0])
        if fused is None:
            return False
        editor.replace([before, node], [fused], results={node.outputs[0]: fused.outputs[0]})
        return True


def _pointwise(conv: ir.Node) -> bool:
    weight = real_constant(conv.inputs[1])
    return (
        weight is not None
        and all(size == 1 for size in weight.shape[2:])
        and not linear.pads(conv)
        and all(stride == 1 for stride in conv.attributes.get_ints("strides", ()))
    )


def _sees_no_bias_at_borders(first: ir.Node, second: ir.Node) -> bool:
    if not linear.pads(second) or len(first.inputs) < 3 or first.inputs[2] is None:
        return True
    bias = real_constant(first.inputs[2])
    return bias is not None and not bias.any()


def _join(first: linear.Linear, second: linear.Linear) -> linear.Linear | None:
    """One layer that does both, or None if it would multiply more, or they are grouped."""
    if first.weight.shape[0] != 1 or second.weight.shape[0] != 1 or first.outputs != second.inputs:
        return None
    inner, outer = first.weight[0], second.weight[0]
    taps = max(inner.shape[2], outer.shape[2])
    if second.outputs * first.inputs * taps >= inner.size + outer.size:
        return None
    return linear.Linear(
        first.node if _pointwise(second.node) else second.node,
        _product(outer, inner)[None],
        second.bias + (outer.sum(axis=2) @ first.bias),
        first.dtype,
    )


def _product(outer: Exact, inner: Exact) -> Exact:
    """(outputs, middle, taps) and (middle, inputs, taps), one of them with one tap, to (outputs, inputs, taps)."""
    taps = max(outer.shape[2], inner.shape[2])
    return np.stack(
        [outer[:, :, min(tap, outer.shape[2] - 1)] @ inner[:, :, min(tap, inner.shape[2] - 1)] for tap in range(taps)],
        axis=2,
    )
