"""HardSwish and HardSigmoid, where an exporter wrote them out.

    HardSigmoid(x) = clip(x + 3, 0, 6) / 6 = max(0, min(1, x / 6 + 1 / 2)),   HardSwish(x) = x HardSigmoid(x)

Four passes over the tensor become two: onnxruntime expands HardSwish, an operator since opset 14, to HardSigmoid and
Mul, and leaves the long form as it is. 1 / 6 may be a factor or a divisor, before or behind x.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.values import constant, input_of, producer_of, rank_of, sole_reader

_HARDSWISH_SINCE = 14


class HardSwish(NodePass):
    """Puts HardSwish or HardSigmoid in the place of Add, Clip, Mul and Div."""

    name = "hard-swish"
    operators = frozenset({"Clip"})
    needs_shapes = True

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Rewrites around the Clip of the long form."""
        add = producer_of(node.inputs[0], "Add")
        if add is None or sole_reader(add.outputs[0]) is not node or not _clips_0_to_6(node):
            return False
        x = _other(add, 3.0)
        after = sole_reader(node.outputs[0])
        if x is None or after is None:
            return False
        if _divides_by_6(after, node.outputs[0]):
            times = sole_reader(after.outputs[0])
            if times is None or not _multiplies(times, x, after.outputs[0]):
                return _put(editor, [add, node, after], x, gate=True)
            return _put(editor, [add, node, after, times], x, gate=False)
        last = sole_reader(after.outputs[0]) if _multiplies(after, x, node.outputs[0]) else None
        if last is None or not _divides_by_6(last, after.outputs[0]):
            return False
        return _put(editor, [add, node, after, last], x, gate=False)


def _put(editor: Editor, old: list[ir.Node], x: ir.Value, *, gate: bool) -> bool:
    last = old[-1]
    if not gate and editor.opset >= _HARDSWISH_SINCE:
        new = [editor.node("HardSwish", [x], like=last)]
    else:
        new = [editor.node("HardSigmoid", [x], attributes={"alpha": 1 / 6, "beta": 0.5}, like=last)]
        if not gate:
            new.append(editor.node("Mul", [x, new[0].outputs[0]], like=last))
    editor.replace(old, new, results={last.outputs[0]: new[-1].outputs[0]})
    return True


def _is(value: ir.Value | None, number: float, *, rank: int | None) -> bool:
    """Whether a value is that constant, in a shape that adds no dimension to a tensor of ``rank``."""
    array = constant(value)
    return (
        array is not None
        and array.size == 1
        and (array.ndim == 0 or (rank is not None and array.ndim <= rank))
        and bool(np.isclose(float(array.reshape(-1)[0]), number, rtol=1e-6, atol=0.0))
    )


def _other(node: ir.Node, number: float) -> ir.Value | None:
    """The operand of a commutative node beside the constant ``number``."""
    left, right = node.inputs
    if _is(right, number, rank=rank_of(left)):
        return left
    return right if _is(left, number, rank=rank_of(right)) else None


def _clips_0_to_6(clip: ir.Node) -> bool:
    if len(clip.inputs) == 1:
        return clip.attributes.get_float("min", -1.0) == 0.0 and clip.attributes.get_float("max", -1.0) == 6.0
    low, high = constant(input_of(clip, 1)), constant(input_of(clip, 2))
    return low is not None and high is not None and float(low) == 0.0 and float(high) == 6.0


def _divides_by_6(node: ir.Node, value: ir.Value) -> bool:
    if node.domain != "":
        return False
    if node.op_type == "Div":
        return node.inputs[0] is value and _is(node.inputs[1], 6.0, rank=rank_of(value))
    return node.op_type == "Mul" and _other(node, 1 / 6) is value


def _multiplies(node: ir.Node, one: ir.Value, other: ir.Value) -> bool:
    return node.op_type == "Mul" and node.domain == "" and set(node.inputs) == {one, other}
