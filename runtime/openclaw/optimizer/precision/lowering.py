"""Matrix layers become 8-bit products: onnxruntime's operators that round their input and answer in float.

    static:   q = QuantizeLinear(x [* 1/smooth]);  MatMulIntegerToFloat(q, w8, bias)   or  QAttention(q, w8, ...)
    dynamic:  DynamicQuantizeMatMul(x, w8, bias), or where layers share x, DynamicQuantizeLinear once for all

All are in every onnxruntime build for CPUs. The zero points of the weights are left out: they are 0, and given as an
array they cost a sum over every row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from openclaw.graph.passes.editing import Editor
from openclaw.optimizer.precision.instructions import Kind
from openclaw.optimizer.precision.layers import MICROSOFT, Group, Layer
from openclaw.optimizer.precision.scaling import Choice, round_weight

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Rounded:
    """A group's input in 8 bits."""

    q: ir.Value
    scale: ir.Value
    zero: ir.Value
    smooth: Floats | None = None


class Lowering:
    """Lowers groups of one model; ``editor`` is of that model."""

    def __init__(self, editor: Editor, kind: Kind) -> None:
        self._editor = editor
        self._kind = kind

    def static(self, group: Group, choice: Choice, corrections: Floats | None = None) -> None:
        """Lowers ``group`` with a scale that was chosen beforehand.

        Args:
            group: of this model.
            choice: for its input.
            corrections: what to take off the outputs of all its layers, side by side.
        """
        rounded, nodes = self._rounded(group, choice)
        start = 0
        for index, layer in enumerate(group.layers):
            width = layer.weight.shape[1]
            off = None if corrections is None else corrections[start : start + width]
            products = self._product(layer, rounded, off)
            self._put(layer, [*(nodes if index == 0 else ()), *products])
            start += width

    def dynamic(self, group: Group) -> None:
        """Lowers ``group`` with scales that every run finds for itself."""
        if len(group.layers) == 1 and group.layers[0].attention is None:
            self._put(group.layers[0], [self._dynamic_product(group.layers[0])])
            return
        first = group.layers[0].nodes[0]
        node = self._editor.node("DynamicQuantizeLinear", [group.x], like=first, outputs=3, beside=True)
        rounded = _Rounded(node.outputs[0], node.outputs[1], node.outputs[2])
        for index, layer in enumerate(group.layers):
            self._put(layer, [*([node] if index == 0 else ()), *self._product(layer, rounded, None)])

    def _rounded(self, group: Group, choice: Choice) -> tuple[_Rounded, list[ir.Node]]:
        like = group.layers[0].nodes[0]
        x, nodes = group.x, []
        if choice.smooth is not None:
            inverse = self._editor.constant(1 / choice.smooth, f"{group.name}/smooth", near=like)
            nodes.append(self._editor.node("Mul", [x, inverse], like=like, beside=True))
            x = nodes[0].outputs[0]
        scale = self._editor.constant(np.asarray(choice.scale), f"{group.name}/scale", near=like)
        kind = np.int8 if self._kind.signed_activations else np.uint8
        zero = self._editor.constant(np.asarray(choice.zero, kind), f"{group.name}/zero", near=like)
        nodes.append(self._editor.node("QuantizeLinear", [x, scale, zero], like=like, beside=True))
        return _Rounded(nodes[-1].outputs[0], scale, zero, choice.smooth), nodes

    def _product(self, layer: Layer, rounded: _Rounded, off: Floats | None) -> list[ir.Node]:
        """The nodes that multiply, the result last; ``off`` is taken off it."""
        weight, scales = self._weight(layer, rounded.smooth)
        bias = self._bias(layer, off)
        if layer.attention is None:
            inputs = [rounded.q, weight, rounded.scale, scales, rounded.zero, None, bias]
            return [self._node("MatMulIntegerToFloat", inputs, layer)]
        inputs = [rounded.q, weight, bias, rounded.scale, scales, layer.mask, rounded.zero]
        return [self._node("QAttention", inputs, layer)]

    def _dynamic_product(self, layer: Layer) -> ir.Node:
        weight, scales = self._weight(layer, None)
        return self._node("DynamicQuantizeMatMul", [layer.x, weight, scales, None, self._bias(layer, None)], layer)

    def _node(self, operator: str, inputs: list[ir.Value | None], layer: Layer) -> ir.Node:
        while inputs[-1] is None:
            inputs.pop()
        self._editor.model.opset_imports.setdefault(MICROSOFT, 1)
        return self._editor.node(
            operator, inputs, attributes=layer.attention or {}, like=layer.nodes[0], domain=MICROSOFT
        )

    def _weight(self, layer: Layer, smooth: Floats | None) -> tuple[ir.Value, ir.Value]:
        weight = layer.weight if smooth is None else layer.weight * smooth[:, None]
        whole, scales = round_weight(weight, self._kind.weight_limit)
        near = layer.nodes[0]
        return (
            self._editor.constant(whole, f"{layer.name}/int8", near=near),
            self._editor.constant(scales, f"{layer.name}/scales", near=near),
        )

    def _bias(self, layer: Layer, off: Floats | None) -> ir.Value | None:
        bias = layer.bias
        if off is not None:
            bias = -off if bias is None else bias - off
        if bias is None:
            return None
        return self._editor.constant(np.asarray(bias, np.float32), f"{layer.name}/bias", near=layer.nodes[0])

    def _put(self, layer: Layer, nodes: list[ir.Node]) -> None:
        self._editor.replace(list(layer.nodes), nodes, results={layer.out: nodes[-1].outputs[0]})


class PairedLowering(Lowering):
    """Lowers with scales that were chosen beforehand, in ONNX's own operators, which other engines know too::

        q = QuantizeLinear(x [* 1/smooth]);  MatMul(DequantizeLinear(q), DequantizeLinear(w8)) [+ bias]

    An engine multiplies in 8 bits where it finds these pairs. There must be no ``Attention`` among the layers.
    """

    def _product(self, layer: Layer, rounded: _Rounded, off: Floats | None) -> list[ir.Node]:
        weight, scales = self._weight(layer, rounded.smooth)
        like, bias = layer.nodes[0], self._bias(layer, off)
        given = [rounded.q, rounded.scale, rounded.zero]
        x = self._editor.node("DequantizeLinear", given, like=like, beside=True)
        w = self._editor.node("DequantizeLinear", [weight, scales], attributes={"axis": 1}, like=like, beside=True)
        nodes = [x, w, self._editor.node("MatMul", [x.outputs[0], w.outputs[0]], like=like)]
        if bias is not None:
            nodes.append(self._editor.node("Add", [nodes[-1].outputs[0], bias], like=like, beside=True))
        return nodes
