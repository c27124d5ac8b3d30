"""A convolution and the curve that its result goes through are one operator.

    f(Conv(x, W, b))  =  FusedConv(x, W, b, activation=f, activation_params)

for Relu, Sigmoid, Tanh, LeakyRelu, HardSigmoid, and Clip between two constants. onnxruntime does the same whenever it
loads a model, so this makes no model faster: it makes the file smaller, and is the last step because nothing else here
looks for FusedConv, quantization least of all. Left alone is what somebody else reads before the curve.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Attribute, Editor
from openclaw.graph.passes.matching import MICROSOFT, scalar
from openclaw.graph.passes.values import input_of, sole_reader

_DEFAULTS = {"LeakyRelu": (("alpha", 0.01),), "HardSigmoid": (("alpha", 0.2), ("beta", 0.5))}
_PLAIN = frozenset({"Relu", "Sigmoid", "Tanh"})


class ConvActivation(NodePass):
    """Joins convolutions and curves."""

    name = "conv-activation"
    operators = frozenset({"Conv"})
    final = True

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Joins one Conv and the only node that reads its result."""
        curve = sole_reader(node.outputs[0])
        if curve is None or curve.domain != "" or editor.shapes.dtype(node.outputs[0]) != ir.DataType.FLOAT:
            return False
        parameters = _parameters(curve)
        if parameters is None:
            return False
        attributes: dict[str, Attribute | ir.Attr] = dict(node.attributes)
        attributes["activation"] = curve.op_type
        if parameters:
            attributes["activation_params"] = parameters
        new = editor.node("FusedConv", node.inputs, attributes=attributes, like=node, domain=MICROSOFT)
        editor.replace([node, curve], [new], results={curve.outputs[0]: new.outputs[0]})
        editor.model.graph.opset_imports.setdefault(MICROSOFT, 1)
        return True


def _parameters(curve: ir.Node) -> list[float] | None:
    """The numbers that shape the curve; None if it is none that a convolution takes along."""
    if curve.op_type in _PLAIN:
        return []
    if curve.op_type == "Clip":
        bounds = [_bound(curve, 1, "min"), _bound(curve, 2, "max")]
        low, high = bounds
        return [low, high] if low is not None and high is not None and low <= high else None
    defaults = _DEFAULTS.get(curve.op_type)
    if defaults is None:
        return None
    given = [(curve.attributes.get(name), default) for name, default in defaults]
    return [default if attribute is None else attribute.as_float() for attribute, default in given]


def _bound(clip: ir.Node, index: int, name: str) -> float | None:
    """A bound of a Clip, an attribute before opset 11 and an input since; None if it is computed, missing or NaN."""
    attribute = clip.attributes.get(name)
    bound = scalar(input_of(clip, index)) if attribute is None else attribute.as_float()
    return None if bound is None or math.isnan(bound) else bound
