"""Embeddings that are looked up, added and normalized are one operator.

    LayerNormalization(words[ids] + kinds[types] + positions[0 .. length])
        = EmbedLayerNormalization(ids, types, words, positions, kinds)

Only where ids and types are looked up in matrices of constants, and the positions are the first rows of one: as many
as there are ids. The operator takes indices of 32 bits and refuses negative ones, which Gather counts from the end;
a tokenizer gives none.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from openclaw.graph.passes.contract import GraphPass
from openclaw.graph.passes.dimensions import same, same_shape
from openclaw.graph.passes.editing import Array, Attribute, Editor, constant, input_of
from openclaw.graph.passes.matching import MICROSOFT, enclosed, in_order, integer, made_by, operands
from openclaw.graph.passes.symbolic import Shapes


class EmbedLayerNorm(GraphPass):
    """Joins look-ups, additions and the layer normalization after them."""

    name = "embed-layer-norm"

    def rewrite(self, editor: Editor) -> int:
        """Looks at every LayerNormalization that has a bias."""
        shapes = Shapes(editor.model)
        nodes = [
            node
            for graph in editor.model.graphs()
            for node in graph
            if node.op_type == "LayerNormalization" and node.domain == "" and integer(node, "axis", -1) in (-1, 2)
        ]
        return sum(_fuse(node, shapes, editor) for node in nodes if input_of(node, 2) is not None)


def _fuse(node: ir.Node, shapes: Shapes, editor: Editor) -> int:
    found = _terms(node, shapes)
    if found is None or len(node.outputs) > 1:
        return 0
    inner, looked_up, positions = found
    first, second = looked_up
    ids, types = first.inputs[1], second.inputs[1]
    if ids is None or types is None or not enclosed([*inner, first, second], node):
        return 0
    casts = [_narrow(value, node, editor) for value in (ids, types)]
    rows = editor.constant(positions, f"{node.name or 'embedding'}/positions", near=node)
    epsilon = node.attributes.get("epsilon")
    attributes: dict[str, Attribute] = {"epsilon": 1e-5 if epsilon is None else epsilon.as_float()}
    new = editor.node(
        "EmbedLayerNormalization",
        [casts[0].outputs[0], casts[1].outputs[0], first.inputs[0], rows, second.inputs[0], *node.inputs[1:3]],
        attributes=attributes,
        like=node,
        outputs=2,
        domain=MICROSOFT,
    )
    old = in_order([*inner, first, second, node])
    editor.replace(old, [*casts, new], results={node.outputs[0]: new.outputs[0]})
    editor.model.graph.opset_imports.setdefault(MICROSOFT, 1)
    return 1


def _narrow(value: ir.Value, near: ir.Node, editor: Editor) -> ir.Node:
    return editor.node("Cast", [value], attributes={"to": onnx.TensorProto.INT32}, like=near)


Terms = tuple[list[ir.Node], tuple[ir.Node, ir.Node], Array]


def _terms(node: ir.Node, shapes: Shapes) -> Terms | None:
    """The additions, the two look-ups (words first), and the rows of the positions."""
    outer = made_by(node.inputs[0], "Add")
    if outer is None:
        return None
    for sum_, third in operands(outer):
        inner = made_by(sum_, "Add")
        if inner is None:
            continue
        values = [third, *(value for value in inner.inputs if value is not None)]
        lookups = [found for value in values if (found := _lookup(value, shapes)) is not None]
        rest = [value for value in values if _lookup(value, shapes) is None]
        if len(lookups) != 2 or len(rest) != 1:
            continue
        lookups.sort(key=lambda one: -_rows(one))
        sizes = [shapes.dims(one.inputs[1]) for one in lookups]
        if sizes[0] is None or sizes[1] is None or len(sizes[0]) != 2 or not same_shape(sizes[0], sizes[1]):
            return None
        positions = _positions(rest[0], lookups[0], shapes)
        return None if positions is None else ([inner, outer], (lookups[0], lookups[1]), positions)
    return None


def _rows(lookup: ir.Node) -> int:
    table = constant(lookup.inputs[0])
    return 0 if table is None else int(table.shape[0])


def _lookup(value: ir.Value, shapes: Shapes) -> ir.Node | None:
    node = made_by(value, "Gather")
    table = None if node is None else constant(node.inputs[0])
    if node is None or table is None or table.ndim != 2 or integer(node, "axis", 0) != 0:
        return None
    kind = shapes.dtype(node.inputs[1])
    indices = constant(node.inputs[1])
    return node if indices is None and kind in (ir.DataType.INT64, ir.DataType.INT32) else None


def _positions(value: ir.Value, words: ir.Node, shapes: Shapes) -> Array | None:
    """The table whose first rows ``value`` holds, one for each word; None if it is anything else."""
    sizes = shapes.dims(words.inputs[1])
    if sizes is None:
        return None
    table, length = constant(value), sizes[1]
    cut = made_by(value, "Slice")
    if table is None and cut is not None:
        start, end, axis = (shapes.elements(input_of(cut, index)) for index in (1, 2, 3))
        steps = shapes.elements(input_of(cut, 4)) or ((1,), 1)
        table = constant(cut.inputs[0])
        if start is None or end is None or axis is None or table is None or steps[0] != (1,):
            return None
        if (
            start[0] != (0,)
            or len(end[0]) != 1
            or not same(end[0][0], length)
            or axis[0] not in ((table.ndim - 2,), (-2,))
        ):
            return None
    elif table is None or not isinstance(length, int) or table.shape[-2:-1] != (length,):
        return None
    if table.ndim == 3 and table.shape[0] == 1:
        table = table[0]
    return table if table.ndim == 2 and table.dtype == np.float32 else None
