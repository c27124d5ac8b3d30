"""Linear layers of one tensor are one, and what it gives is split.

    x W1, x W2, x W3  =  Split(x [W1 W2 W3])

as queries, keys and values are, or the gates of a recurrence. The rows of x are read once, and one wide product fills
the cores better than three narrow ones; in return the parts are copied out, so measuring decides. MatMuls that add a
row of constants are joined with it; Gemms need the same factors, and matrices turned the same way. Joined products that
only onnxruntime's quantization would tell apart stay exact: every column is computed from the same numbers as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes.contract import GraphPass
from openclaw.graph.passes.editing import Attribute, Editor
from openclaw.graph.passes.matching import integer, operands
from openclaw.graph.passes.siblings import join
from openclaw.graph.passes.values import Array, constant, input_of


@dataclass(frozen=True)
class _Layer:
    """A linear layer: its product, the addition behind it if there is one, and the constants of both."""

    product: ir.Node
    last: ir.Node
    weight: Array
    bias: Array | None

    @property
    def columns(self) -> int:
        return int(self.weight.shape[0 if integer(self.product, "transB", 0) else 1])


class MatMulSiblings(GraphPass):
    """Joins linear layers that read the same."""

    name = "matmul-siblings"
    opsets = range(13, 29)
    speculative = True

    def rewrite(self, editor: Editor) -> int:
        """Groups the linear layers of every graph by what they read."""
        joined = 0
        for graph in editor.model.graphs():
            groups: dict[object, list[_Layer]] = {}
            for node in graph:
                layer = _layer(node)
                if layer is not None:
                    groups.setdefault(_key(layer), []).append(layer)
            families = [layers for layers in groups.values() if len(layers) > 1]
            for layers in families:
                _join(layers, editor)
            joined += len(families)
        return joined


def _layer(node: ir.Node) -> _Layer | None:
    if node.domain != "" or node.op_type not in ("MatMul", "Gemm") or node.inputs[0] is None:
        return None
    weight = constant(node.inputs[1])
    if weight is None or weight.ndim != 2 or weight.dtype not in (np.float32, np.float64):
        return None
    if node.op_type == "Gemm":
        given = input_of(node, 2)
        bias = constant(given)
        if given is None:
            return _Layer(node, node, weight, None)
        return (
            _Layer(node, node, weight, bias)
            if bias is not None and bias.ndim == 1 and _is_row(bias, node, weight)
            else None
        )
    uses = tuple(node.outputs[0].uses())
    if len(uses) == 1 and not node.outputs[0].is_graph_output() and uses[0].node.op_type == "Add":
        addition = uses[0].node
        for value, row in operands(addition):
            bias = constant(row)
            if value is node.outputs[0] and bias is not None and bias.shape == weight.shape[1:]:
                return _Layer(node, addition, weight, bias) if addition.graph is node.graph else None
    return _Layer(node, node, weight, None)


def _is_row(bias: Array, node: ir.Node, weight: Array) -> bool:
    return bool(bias.shape == (weight.shape[0 if integer(node, "transB", 0) else 1],))


def _key(layer: _Layer) -> object:
    attributes = tuple(sorted((name, str(one.value)) for name, one in layer.product.attributes.items()))
    rows = layer.weight.shape[1 if integer(layer.product, "transB", 0) else 0]
    return (
        id(layer.product.inputs[0]),
        layer.product.op_type,
        attributes,
        rows,
        layer.weight.dtype,
        layer.bias is None,
    )


def _join(layers: Sequence[_Layer], editor: Editor) -> None:
    first = layers[0].product
    weight = np.concatenate([layer.weight for layer in layers], axis=0 if integer(first, "transB", 0) else 1)
    inputs = [first.inputs[0], editor.constant(weight, f"{first.name or 'joined'}/weights", near=first)]
    biases = [layer.bias for layer in layers if layer.bias is not None]
    row = editor.constant(np.concatenate(biases), f"{first.name or 'joined'}/biases", near=first) if biases else None
    if first.op_type == "Gemm" and row is not None:
        inputs.append(row)
    attributes: dict[str, Attribute | ir.Attr] = dict(first.attributes)
    new = [editor.node(first.op_type, inputs, attributes=attributes, like=first)]
    if first.op_type == "MatMul" and row is not None:
        new.append(editor.node("Add", [new[-1].outputs[0], row], like=first))
    members = [[layer.product] if layer.last is layer.product else [layer.product, layer.last] for layer in layers]
    join(members, new, [layer.columns for layer in layers], axis=-1, editor=editor)
