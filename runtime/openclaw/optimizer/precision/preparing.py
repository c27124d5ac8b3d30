"""What a model needs before it can be quantized: an operator set with per-channel scales, a name for every node, and
products that stand alone.

onnxruntime's attention for 8 bits has no place for a mask that is added, so an ``Attention`` with one would stay in
float, a quarter of an encoder's products with it. It is taken apart::

    Attention(x, w, b, mask)  =  MultiHeadAttention(Split(x w + b), mask)
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from openclaw.errors import NotApplicable
from openclaw.graph.passes.editing import Attribute, Editor
from openclaw.graph.passes.matching import MICROSOFT, integer
from openclaw.graph.passes.values import constant, input_of
from openclaw.optimizer.model.opset import opset_of, raised

PER_CHANNEL_SINCE = 13
TARGET = 17

_ADDED_MASK = 5
_KNOWN = {"num_heads", "scale", "qkv_hidden_sizes", "mask_filter_value"}


def prepared(model: onnx.ModelProto, *, since: int = PER_CHANNEL_SINCE) -> onnx.ModelProto:
    """A copy in operator set ``since`` or later, whose nodes all have names of their own.

    Raises:
        NotApplicable: the model is of an older operator set, and cannot be converted.
    """
    if opset_of(model) < since:
        try:
            copy = raised(model, TARGET)
        except NotApplicable as error:
            raise NotApplicable(f"it needs operator set {since}: {error}") from error
    else:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
    _name(copy.graph)
    return _with_products(copy)


def _name(graph: onnx.GraphProto) -> None:
    seen: set[str] = set()
    for node in graph.node:
        wish = node.name or next(filter(None, node.output), node.op_type)
        name, number = wish, 1
        while name in seen:
            name, number = f"{wish}_{number}", number + 1
        seen.add(name)
        node.name = name


def _with_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with attention to an added mask taken apart; the same where there is none."""
    if not any(node.op_type == "Attention" and node.domain == MICROSOFT for node in model.graph.node):
        return model
    form = ir.from_proto(model)
    editor = Editor(form)
    count = sum(_take_apart(node, editor) for node in list(form.graph) if node.op_type == "Attention")
    return ir.to_proto(form) if count else model


def _take_apart(node: ir.Node, editor: Editor) -> bool:
    weight, bias, mask = constant(node.inputs[1]), input_of(node, 2), input_of(node, _ADDED_MASK)
    others = any(value is not None for index, value in enumerate(node.inputs) if index not in (0, 1, 2, _ADDED_MASK))
    plain = node.domain == MICROSOFT and len(node.outputs) == 1 and set(node.attributes) <= _KNOWN and not others
    if not plain or weight is None or weight.ndim != 2 or bias is None or mask is None:
        return False
    told = node.attributes.get("qkv_hidden_sizes")
    sizes = [weight.shape[1] // 3] * 3 if told is None else list(told.as_ints())
    product = editor.node("MatMul", [node.inputs[0], node.inputs[1]], like=node)
    total = editor.node("Add", [product.outputs[0], bias], like=node)
    parts = editor.constant(np.array(sizes, np.int64), f"{node.name}/sizes", near=node)
    split = editor.node("Split", [total.outputs[0], parts], attributes={"axis": -1}, like=node, outputs=3)
    attributes: dict[str, Attribute] = {"num_heads": integer(node, "num_heads", 0)}
    if "scale" in node.attributes:
        attributes["scale"] = node.attributes["scale"].as_float()
    inputs = [*split.outputs, None, None, mask]
    attention = editor.node("MultiHeadAttention", inputs, attributes=attributes, like=node, domain=MICROSOFT)
    editor.replace([node], [product, total, split, attention], results={node.outputs[0]: attention.outputs[0]})
    return True
