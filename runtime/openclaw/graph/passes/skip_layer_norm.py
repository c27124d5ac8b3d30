"""A sum that is normalized is added up and normalized in one operator.

    LayerNormalization(a + b, scale, bias)  =  SkipLayerNormalization(a, b, scale, bias)

A bias of one row in ``a`` or ``b`` goes in too, and the sum comes out again where somebody else reads it, as in
transformers that normalize first. ``a`` must have three dimensions, and ``b`` the same shape, or the same for all of
the batch, as positions have. Fewer nodes, but onnxruntime's kernel for CPUs is slower than the two (see
``normalized_difference``), so measuring decides.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.dimensions import same
from openclaw.graph.passes.editing import Attribute, Editor
from openclaw.graph.passes.matching import MICROSOFT, in_order, integer, made_by, operands
from openclaw.graph.passes.symbolic import Shapes
from openclaw.graph.passes.values import constant, input_of


class SkipLayerNorm(NodePass):
    """Joins additions and the layer normalization after them."""

    name = "skip-layer-norm"
    operators = frozenset({"LayerNormalization"})
    speculative = True

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Looks at a LayerNormalization over the last axis."""
        return integer(node, "axis", -1) in (-1, 2) and _fuse(node, editor.shapes, editor)


def _fuse(node: ir.Node, shapes: Shapes, editor: Editor) -> bool:
    addition = made_by(node.inputs[0], "Add")
    if addition is None or addition.graph is not node.graph or any(_is_read(value) for value in node.outputs[1:]):
        return False
    left, right = addition.inputs
    if left is None or right is None or shapes.dtype(left) != ir.DataType.FLOAT:
        return False
    if not _covers(left, right, shapes):
        left, right = right, left
        if not _covers(left, right, shapes):
            return False
    nodes, bias = [addition, node], None
    for part in (left, right):
        found = _biased(part, shapes)
        if found is not None and found[0].graph is node.graph:
            nodes, bias = [found[0], *nodes], found[2]
            left, right = (found[1], right) if part is left else (left, found[1])
            break
    kept = any(use.node is not node for use in addition.outputs[0].uses()) or addition.outputs[0].is_graph_output()
    return _replace(nodes, (left, right, bias), keep_sum=kept, editor=editor)


def _covers(value: ir.Value, added: ir.Value, shapes: Shapes) -> bool:
    """Whether ``value`` has three dimensions, and ``added`` the same or all but the batch."""
    dims, others = shapes.dims(value), shapes.dims(added)
    if dims is None or others is None or len(dims) != 3 or len(others) not in (2, 3):
        return False
    if not all(shapes.meets(other, dim) for other, dim in zip(others[-2:], dims[1:], strict=True)):
        return False
    return len(others) == 2 or others[0] == 1 or same(others[0], dims[0])


def _is_read(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _biased(value: ir.Value, shapes: Shapes) -> tuple[ir.Node, ir.Value, ir.Value] | None:
    """The addition of a constant row that makes ``value``, if nobody else reads that."""
    addition = made_by(value, "Add")
    if addition is None or len(value.uses()) > 1 or value.is_graph_output():
        return None
    for rest, row in operands(addition):
        array, dims = constant(row), shapes.dims(rest)
        if array is not None and array.ndim == 1 and dims is not None and len(dims) > 1 and dims[-1] == array.size:
            return addition, rest, row
    return None


def _replace(
    nodes: list[ir.Node], parts: tuple[ir.Value, ir.Value, ir.Value | None], *, keep_sum: bool, editor: Editor
) -> bool:
    node, addition = nodes[-1], nodes[-2]
    left, right, bias = parts
    scale, shift = node.inputs[1], input_of(node, 2)
    if shift is None and bias is not None and scale is not None and scale.shape is not None:
        width = constant(bias)
        shift = None if width is None else editor.constant(np.zeros_like(width), f"{node.name}/zero", near=node)
    inputs = [left, right, scale, shift, bias]
    while inputs[-1] is None:
        inputs.pop()
    epsilon = node.attributes.get("epsilon")
    attributes: dict[str, Attribute] = {"epsilon": 1e-5 if epsilon is None else epsilon.as_float()}
    new = editor.node(
        "SkipLayerNormalization",
        inputs,
        attributes=attributes,
        like=node,
        outputs=4 if keep_sum else 1,
        domain=MICROSOFT,
    )
    results = {node.outputs[0]: new.outputs[0]}
    if keep_sum:
        new.outputs[1].name = new.outputs[2].name = ""
        results[addition.outputs[0]] = new.outputs[3]
    # The sum may be read before the normalization; the new node must come before its readers.
    if keep_sum:
        _move_up(nodes)
    editor.replace(in_order(nodes), [new], results=results)
    editor.model.graph.opset_imports.setdefault(MICROSOFT, 1)
    return True


def _move_up(nodes: list[ir.Node]) -> None:
    """Puts the normalization right behind the addition: all else that it reads are constants or inputs before it."""
    node, addition = nodes[-1], nodes[-2]
    graph = node.graph
    if isinstance(graph, ir.Graph):
        graph.remove(node)
        graph.insert_after(addition, node)
