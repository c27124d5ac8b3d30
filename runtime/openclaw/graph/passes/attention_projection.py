"""Queries, keys and values that are projected from one tensor are projected inside of the attention.

    MultiHeadAttention(x Wq + bq, x Wk + bk, x Wv + bv)  =  Attention(x, [Wq Wk Wv], [bq bk bv])

One multiplication by the joined weights reads x once instead of three times, and nothing is stored in between. Biases
may be missing. The projections may also be one already, cut in three by a Split. Not with a cache: Attention takes and
gives keys and values of it in one tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Attribute, Editor
from openclaw.graph.passes.matching import MICROSOFT, enclosed, in_order, integer, made_by, operands
from openclaw.graph.passes.symbolic import Shapes
from openclaw.graph.passes.values import Array, constant, input_of


@dataclass(frozen=True)
class Projection:
    """A linear layer with constant weights: ``source @ weight + bias``."""

    source: ir.Value
    weight: Array
    bias: Array | None
    nodes: tuple[ir.Node, ...]


class AttentionProjection(NodePass):
    """Moves projections into attention."""

    name = "attention-projection"
    operators = frozenset({"MultiHeadAttention"})
    domain = MICROSOFT

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Looks at one that has no cache."""
        return _fuse(node, editor.shapes, editor)


def _fuse(node: ir.Node, shapes: Shapes, editor: Editor) -> bool:
    unknown = (3, 4, 6, 7, 8, 9)
    if len(node.outputs) > 1 or any(input_of(node, index) is not None for index in unknown):
        return False
    parts = _three(node) or _one(node)
    if parts is None:
        return False
    source, weight, bias, nodes, sizes = parts
    dims = shapes.dims(source)
    if dims is None or len(dims) != 3 or not enclosed(nodes, node) or weight.dtype != np.float32:
        return False
    stem = node.name or "attention"
    inputs = [
        source,
        editor.constant(weight, f"{stem}/weight", near=node),
        editor.constant(bias, f"{stem}/bias", near=node),
        None,
        None,
        input_of(node, 5),
    ]
    while inputs[-1] is None:
        inputs.pop()
    attributes: dict[str, Attribute] = {
        "num_heads": integer(node, "num_heads", 0),
        "scale": node.attributes["scale"].as_float(),
    }
    if sizes[0] != sizes[2]:
        attributes["qkv_hidden_sizes"] = sizes
    new = editor.node("Attention", inputs, attributes=attributes, like=node, domain=MICROSOFT)
    editor.replace(in_order([*nodes, node]), [new], results={node.outputs[0]: new.outputs[0]})
    return True


Parts = tuple[ir.Value, Array, Array, list[ir.Node], list[int]]


def _three(node: ir.Node) -> Parts | None:
    """Three linear layers of one tensor."""
    layers = [projection(value) for value in node.inputs[:3]]
    known = [layer for layer in layers if layer is not None]
    if len(known) < 3 or any(layer.source is not known[0].source for layer in known):
        return None
    sizes = [int(layer.weight.shape[1]) for layer in known]
    biases = [np.zeros(layer.weight.shape[1], np.float32) if layer.bias is None else layer.bias for layer in known]
    nodes = [one for layer in known for one in layer.nodes]
    return known[0].source, np.concatenate([layer.weight for layer in known], 1), np.concatenate(biases), nodes, sizes


def _one(node: ir.Node) -> Parts | None:
    """One linear layer, split in three equal parts along the last axis."""
    makers = {value.producer() if value is not None else None for value in node.inputs[:3]}
    split = makers.pop()
    if makers or split is None or split.op_type != "Split" or split.domain != "":
        return None
    if tuple(node.inputs[:3]) != tuple(split.outputs) or integer(split, "axis", 0) not in (-1, 2):
        return None
    layer, told = projection(split.inputs[0]), input_of(split, 1)
    width = 0 if layer is None else int(layer.weight.shape[1])
    if layer is None or width % 3:
        return None
    if told is not None and (constant(told) is None or np.any(constant(told) != width // 3)):
        return None
    bias = np.zeros(width, np.float32) if layer.bias is None else layer.bias
    return layer.source, layer.weight, bias, [*layer.nodes, split], [width // 3] * 3


def projection(value: ir.Value | None) -> Projection | None:
    """The linear layer that makes ``value``, with what is constant in it; None if there is none."""
    product, bias, nodes = made_by(value, "MatMul"), None, []
    addition = made_by(value, "Add")
    if addition is not None:
        for candidate, added in operands(addition):
            product, bias = made_by(candidate, "MatMul"), constant(added)
            if product is not None and bias is not None:
                nodes = [addition]
                break
    weight = None if product is None else constant(product.inputs[1])
    if product is None or weight is None or product.inputs[0] is None or weight.ndim != 2 or (nodes and bias is None):
        return None
    if bias is not None and bias.shape != weight.shape[1:]:
        return None
    return Projection(product.inputs[0], weight, bias, (product, *nodes))
