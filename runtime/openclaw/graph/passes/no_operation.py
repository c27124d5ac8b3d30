"""Nodes that give what they got are left out.

Identity; Dropout, unless it is told to train; Cast to the type that is there; Transpose to the order that is there;
Reshape, Flatten, Squeeze and Expand to the shape that is there, and Slice over all of it; Pad by nothing; Concat, Sum,
Max, Min and Mean of one; ``x + 0``, ``x - 0``, ``x * 1``, ``x / 1``, ``x ** 1`` with a constant
that changes neither shape nor type.

A node whose result is an output is left out only if its source can take over the output's name: a source that is an
input, an initializer, another output, or a value of a graph around this one cannot. onnx-ir's own pass for Identity
minds only the first two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes.contract import GraphPass
from openclaw.graph.passes.dimensions import same_shape
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.matching import integer, integers
from openclaw.graph.passes.symbolic import Shapes
from openclaw.graph.passes.values import constant, constant_tensor, input_of


class NoOperation(GraphPass):
    """Leaves out what does nothing."""

    name = "no-operation"

    def rewrite(self, editor: Editor) -> int:
        """Looks at every node of every graph."""
        shapes = editor.shapes
        nodes = [node for graph in editor.model.graphs() for node in graph if node.op_type in _RULES]
        return sum(bypass(node, editor) for node in nodes if node.domain == "" and _does_nothing(node, shapes))


def _does_nothing(node: ir.Node, shapes: Shapes) -> bool:
    later = node.outputs[1:]
    if not node.inputs or node.inputs[0] is None or any(value.uses() or value.is_graph_output() for value in later):
        return False
    return _RULES[node.op_type](node, shapes)


def bypass(node: ir.Node, editor: Editor) -> bool:
    """Lets those that read the first output of ``node`` read its first input, if that can be; whether it can."""
    source, result, graph = node.inputs[0], node.outputs[0], node.graph
    if source is None or not isinstance(graph, ir.Graph):
        return False
    if source.type is None:
        source.type = result.type
    if result.is_graph_output():
        maker = source.producer()
        if maker is None or maker.graph is not graph or source.is_graph_output():
            return False
        name, source.type, source.shape = result.name, result.type, result.shape
        result.replace_all_uses_with(source, replace_graph_outputs=True)
        result.name = editor.name(f"{name}/left_out")
        source.name = name
    else:
        result.replace_all_uses_with(source)
    inputs = [value for value in node.inputs if value is not None]
    graph.remove(node, safe=True)
    editor.forget(inputs)
    return True


def _always(node: ir.Node, shapes: Shapes) -> bool:
    return True


def _of_one(node: ir.Node, shapes: Shapes) -> bool:
    return len(node.inputs) == 1


def _dropout(node: ir.Node, shapes: Shapes) -> bool:
    training = input_of(node, 2)
    if training is None:
        return integer(node, "is_test", 1) != 0
    told = constant(training)
    return told is not None and not told.any()


def _cast(node: ir.Node, shapes: Shapes) -> bool:
    kind = shapes.dtype(node.inputs[0])
    return kind is not None and kind.value == integer(node, "to", 0)


def _transpose(node: ir.Node, shapes: Shapes) -> bool:
    order = integers(node, "perm")
    return order is not None and order == tuple(range(len(order)))


def _keeps_shape(node: ir.Node, shapes: Shapes) -> bool:
    before, after = shapes.dims(node.inputs[0]), shapes.dims(node.outputs[0])
    return before is not None and after is not None and same_shape(before, after)


def _slice(node: ir.Node, shapes: Shapes) -> bool:
    steps = constant(node.inputs[4]) if input_of(node, 4) is not None else np.ones(1, np.int64)
    return steps is not None and bool((steps == 1).all()) and _keeps_shape(node, shapes)


def _pad(node: ir.Node, shapes: Shapes) -> bool:
    told = integers(node, "pads")
    pads = np.array(told) if told is not None else constant(input_of(node, 1))
    return pads is not None and not pads.any()


def _neutral(number: int) -> Callable[[ir.Node, Shapes], bool]:
    def rule(node: ir.Node, shapes: Shapes) -> bool:
        tensor = constant_tensor(input_of(node, 1))
        if tensor is None or tensor.size != 1:
            return False
        operand, before = np.asarray(tensor.numpy()), shapes.dims(node.inputs[0])
        if operand.dtype.kind not in "fiu" or operand.reshape(-1)[0] != number:
            return False
        return operand.ndim == 0 or (before is not None and operand.ndim <= len(before))

    return rule


_RULES: Mapping[str, Callable[[ir.Node, Shapes], bool]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Cast": _cast,
    "Transpose": _transpose,
    "Reshape": _keeps_shape,
    "Flatten": _keeps_shape,
    "Squeeze": _keeps_shape,
    "Expand": _keeps_shape,
    "Slice": _slice,
    "Pad": _pad,
    "Concat": _of_one,
    "Sum": _of_one,
    "Max": _of_one,
    "Min": _of_one,
    "Mean": _of_one,
    "Add": _neutral(0),
    "Sub": _neutral(0),
    "Mul": _neutral(1),
    "Div": _neutral(1),
    "Pow": _neutral(1),
}
