"""Takes operators apart that were fused for float, where the parts are faster once products between them are 8-bit.

``SkipLayerNormalization(x, skip, gamma, beta, bias)`` is ``LayerNormalization(x + bias + skip)``; the bias goes into
the product before it, and onnxruntime's kernel of the one operator takes four times as long as those of the two. Where
the shapes are known onnxruntime would fuse ``Add`` and ``LayerNormalization`` again when it loads the model; it does
not look for a ``Sub``, so the product is negated instead, which is exact.

``BiasGelu(x, bias)`` is ``Gelu(x + bias)``, and the bias goes into the product as well.

``EmbedLayerNormalization`` gives its tables back, so that they can be kept in 8 bits.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.values import constant, input_of
from openclaw.optimizer.precision.layers import MICROSOFT

LAYER_NORMALIZATION_SINCE = 17


def loosen(editor: Editor) -> int:
    """Takes the main graph's fused operators apart; how many."""
    if editor.opset < LAYER_NORMALIZATION_SINCE:
        return 0
    count = 0
    for node in list(editor.model.graph):
        if node.domain != MICROSOFT:
            continue
        if node.op_type == "SkipLayerNormalization":
            count += _skip(editor, node)
        elif node.op_type == "BiasGelu":
            count += _gelu(editor, node)
        elif node.op_type == "EmbedLayerNormalization":
            count += _embedding(editor, node)
    return count


def _used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _epsilon(node: ir.Node) -> float:
    return float(node.attributes.get_float("epsilon", 1e-12))


def _skip(editor: Editor, node: ir.Node) -> int:
    x, skip, gamma = node.inputs[0], node.inputs[1], input_of(node, 2)
    beta, bias = input_of(node, 3), input_of(node, 4)
    # The sum is an optional fourth output; the second and third are for training.
    if any(_used(output) for output in node.outputs[1:3]) or gamma is None:
        return 0
    new = []
    if bias is not None:
        new.append(editor.node("Add", [x, bias], like=node, beside=True))
        x = new[-1].outputs[0]
    new.append(editor.node("Add", [x, skip], like=node, beside=True))
    total = new[-1].outputs[0]
    new.append(_normalization(editor, node, [total, gamma, beta]))
    results = {node.outputs[0]: new[-1].outputs[0]}
    if len(node.outputs) > 3 and _used(node.outputs[3]):
        results[node.outputs[3]] = total
    editor.replace([node], new, results=results)
    return 1


def _normalization(editor: Editor, like: ir.Node, inputs: list[ir.Value | None]) -> ir.Node:
    return editor.node("LayerNormalization", inputs, attributes={"axis": -1, "epsilon": _epsilon(like)}, like=like)


def _gelu(editor: Editor, node: ir.Node) -> int:
    add = editor.node("Add", list(node.inputs), like=node, beside=True)
    gelu = editor.node("Gelu", [add.outputs[0]], like=node, domain=MICROSOFT)
    editor.replace([node], [add, gelu], results={node.outputs[0]: gelu.outputs[0]})
    return 1


def _embedding(editor: Editor, node: ir.Node) -> int:
    ids, segments, words, positions, kinds, gamma, beta, mask, places = (input_of(node, index) for index in range(9))
    if (
        mask is not None
        or places is not None
        or any(_used(output) for output in node.outputs[1:])
        or constant(positions) is None
    ):
        return 0
    new: list[ir.Node] = []

    def step(operator: str, *inputs: ir.Value | None, **attributes: int) -> ir.Value:
        new.append(editor.node(operator, inputs, attributes=attributes, like=node, beside=True))
        return new[-1].outputs[0]

    def whole(*numbers: int) -> ir.Value:
        return editor.constant(np.array(numbers, np.int64), f"{node.name}/whole", near=node)

    total = step("Gather", words, ids)
    if kinds is not None and segments is not None:
        total = step("Add", total, step("Gather", kinds, segments))
    length = step("Slice", step("Shape", ids), whole(1), whole(2))
    rows = step("Slice", positions, whole(0), length, whole(0))
    total = step("Add", total, rows)
    new.append(_normalization(editor, node, [total, gamma, beta]))
    editor.replace([node], new, results={node.outputs[0]: new[-1].outputs[0]})
    return 1


def subtract(editor: Editor) -> int:
    """Writes the sums that are normalized as differences from what was negated (see above); how many.

    Where nothing but the sum reads an 8-bit product, its scales and its bias can be negated.
    """
    count = 0
    for node in list(editor.model.graph):
        if node.domain == "" and node.op_type == "LayerNormalization":
            add = node.inputs[0].producer() if node.inputs[0] is not None else None
            if add is not None and add.domain == "" and add.op_type == "Add":
                count += _subtract(editor, add)
    return count


_PLACES = {"MatMulIntegerToFloat": (3, 6), "DynamicQuantizeMatMul": (2, 4)}
"""Where an operator's weight scales and its bias are."""


def _subtract(editor: Editor, add: ir.Node) -> int:
    first, second = add.inputs
    for product, other in ((first, second), (second, first)):
        maker = None if product is None else product.producer()
        if maker is None or product is None or maker.domain != MICROSOFT or len(product.uses()) != 1:
            continue
        if maker.op_type not in _PLACES or product.is_graph_output():
            continue
        for place in _PLACES[maker.op_type]:
            array = constant(input_of(maker, place))
            if array is not None:
                editor.replace_constant(maker, place, -np.asarray(array, np.float32), name=f"{maker.name}/negated")
        difference = editor.node("Sub", [other, product], like=add)
        editor.replace([add], [difference], results={add.outputs[0]: difference.outputs[0]})
        return 1
    return 0
