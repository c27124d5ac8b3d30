"""Shapes that a graph computes from shapes become constants.

An exporter that traces ``x.view(batch, length, heads, size)`` writes Shape, Gather, Unsqueeze and Concat to rebuild
``[batch, length, heads, size]`` before each Reshape. With all sizes known that is a constant. With free ones it still
is wherever an element equals the dimension of the data at the same place, which Reshape copies when told 0::

    Reshape(x[N, S, 768], Concat(N, S, 12, 64))  =  Reshape(x, [0, 0, 12, 64])

One more element may be told as -1 if all others are positive numbers: with a 0 among them -1 has no value, and a
batch may be empty. Which elements equal which dimensions is proved by ``symbolic``; elements that are given as 0 or -1
keep their meaning. An Expand to the shape that its input has anyway is left out.

A size that is asked of an inner tensor, and is that of an input or a sum of such, is asked of the inputs instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes.contract import GraphPass
from openclaw.graph.passes.dimensions import Dim, Dims, reshaped, same, same_shape
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.matching import integer, made_by
from openclaw.graph.passes.no_operation import bypass
from openclaw.graph.passes.symbolic import Shapes
from openclaw.graph.passes.values import constant_tensor


class ShapeArithmetic(GraphPass):
    """Replaces computed shapes by constants."""

    name = "shape-arithmetic"

    def rewrite(self, editor: Editor) -> int:
        """Folds what is known in numbers, and the targets of Reshape and Expand that are known in names."""
        shapes = editor.shapes
        nodes = [node for graph in editor.model.graphs() for node in graph]
        return sum(_rewrite(node, shapes, editor) for node in nodes if node.domain == "")


def _rewrite(node: ir.Node, shapes: Shapes, editor: Editor) -> int:
    if node.op_type == "Reshape" and len(node.inputs) == 2:
        return _reshape(node, shapes, editor)
    if node.op_type == "Expand":
        source, output = shapes.dims(node.inputs[0]), shapes.dims(node.outputs[0])
        if source is not None and output is not None and same_shape(source, output):
            return int(bypass(node, editor))
        return 0
    return _fold(node, shapes, editor) or _from_inputs(node, shapes, editor)


def _fold(node: ir.Node, shapes: Shapes, editor: Editor) -> int:
    """Puts a constant where a node gives integers that are all known."""
    known = shapes.elements(node.outputs[0]) if len(node.outputs) == 1 and node.op_type != "Constant" else None
    if known is None or node.outputs[0].is_graph_output() or not node.outputs[0].uses():
        return 0
    if not all(isinstance(item, int) for item in known[0]):
        return 0
    kind = shapes.dtype(node.outputs[0])
    if kind not in (ir.DataType.INT64, ir.DataType.INT32):
        return 0
    array = np.array(known[0], kind.numpy()).reshape((-1,) if known[1] else ())
    value = editor.constant(array, node.outputs[0].name or "shape", near=node)
    node.outputs[0].replace_all_uses_with(value)
    graph = node.graph
    if isinstance(graph, ir.Graph):
        inputs = [value for value in node.inputs if value is not None]
        graph.remove(node, safe=True)
        editor.forget(inputs)
    return 1


def _from_inputs(node: ir.Node, shapes: Shapes, editor: Editor) -> int:
    """Takes a size of an inner tensor from the model's inputs instead: then the tensor is free to disappear."""
    shape = made_by(node.inputs[0], "Shape") if node.op_type == "Gather" else None
    known = shapes.elements(node.outputs[0])
    if shape is None or known is None or len(known[0]) != 1 or node.outputs[0].is_graph_output():
        return 0
    source, size = shape.inputs[0], known[0][0]
    if source is None or source.is_graph_input() or not isinstance(size, ir.SymbolicDim):
        return 0
    names = [ir.SymbolicDim(name) for name in sorted(size.free_symbols())]
    total: Dim = 0
    for name in names:
        total = total + name
    places = [_place(name, shapes, editor.model) for name in names]
    if not same(total, size) or not 1 <= len(places) <= 3 or any(place is None for place in places):
        return 0
    new, parts = [], []
    for value, axis in (place for place in places if place is not None):
        index = editor.constant(np.full((1,) if known[1] else (), axis, np.int64), "axis", near=node)
        whole = editor.node("Shape", [value], like=node)
        part = editor.node("Gather", [whole.outputs[0], index], attributes={"axis": 0}, like=node)
        new += [whole, part]
        parts.append(part.outputs[0])
    while len(parts) > 1:
        new.append(editor.node("Add", parts[:2], like=node))
        parts = [new[-1].outputs[0], *parts[2:]]
    editor.replace([node], new, results={node.outputs[0]: parts[0]})
    return 1


def _place(name: ir.SymbolicDim, shapes: Shapes, model: ir.Model) -> tuple[ir.Value, int] | None:
    """The first input of the model and its axis that have the size ``name``."""
    for value in model.graph.inputs:
        for axis, dim in enumerate(shapes.dims(value) or ()):
            if same(dim, name):
                return value, axis
    return None


def _reshape(node: ir.Node, shapes: Shapes, editor: Editor) -> int:
    source, target = shapes.dims(node.inputs[0]), shapes.elements(node.inputs[1])
    if source is None or target is None or constant_tensor(node.inputs[1]) is not None:
        return 0
    told = as_constant(source, target[0], allow_zero=integer(node, "allowzero", 0) != 0)
    if told is None:
        return 0
    value = editor.constant(np.array(told, np.int64), f"{node.name or 'reshape'}/shape", near=node)
    new = editor.node("Reshape", [node.inputs[0], value], like=node)
    editor.replace([node], [new], results={node.outputs[0]: new.outputs[0]})
    return 1


def as_constant(source: Dims, target: Sequence[Dim], *, allow_zero: bool) -> list[int] | None:
    """What to tell Reshape so that ``source`` gets the shape ``target``, whatever the names stand for; None if unclear.

    ``target`` is as Reshape takes it, with -1 and (unless ``allow_zero``) 0 in their special meanings.
    """
    wanted = reshaped(source, target, allow_zero=allow_zero)
    if wanted is None:
        return None
    told: list[int | None] = []
    for index, (item, dim) in enumerate(zip(target, wanted, strict=True)):
        copied = dim is not None and index < len(source) and same(source[index], dim)
        if isinstance(dim, int) and dim > 0:
            told.append(dim)
        elif copied:
            told.append(0)
        elif isinstance(item, int) and item == -1:
            told.append(-1)
        elif isinstance(dim, int):
            return None
        else:
            told.append(None)
    if told.count(None) + told.count(-1) > 1:
        return None
    if None in told and not all(item is None or item > 0 for item in told):
        return None
    return [-1 if item is None else item for item in told]
