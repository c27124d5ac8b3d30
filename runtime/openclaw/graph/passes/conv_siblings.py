"""Convs on one input that differ in their weights alone, as one Conv whose result is split.

    y1 = W1 * x + b1,   y2 = W2 * x + b2   ->   y = [W1; W2] * x + [b1; b2],   y1, y2 = Split(y, axis 1)

x is read, and laid out for the kernel, once instead of twice; Split copies the results. Which of the two is more
depends on sizes and machine. Speculative: measure it. Grouped convolutions are left, their outputs would interleave.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes import linear
from openclaw.graph.passes.contract import GraphPass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.siblings import join
from openclaw.graph.passes.values import real_constant

_Form = tuple[object, ...]


class ConvSiblings(GraphPass):
    """Merges Convs on one input with equal attributes, kernels and types."""

    name = "conv-siblings"
    speculative = True

    def rewrite(self, editor: Editor) -> int:
        """Merges every group of siblings in every graph."""
        found: dict[_Form, list[linear.Linear]] = {}
        for graph in editor.model.graphs():
            for node in graph:
                # Weights are read in 64 bits: only those that may have a sibling.
                layer = linear.read(node) if node.op_type == "Conv" and _is_shared(node.inputs[0]) else None
                if layer is not None and layer.weight.shape[0] == 1:
                    found.setdefault((id(graph), node.inputs[0], *_form(layer)), []).append(layer)
        groups = [layers for layers in found.values() if len(layers) > 1]
        for layers in groups:
            _merge(layers, editor)
        return len(groups)


def _is_shared(value: ir.Value | None) -> bool:
    return value is not None and sum(1 for node, _ in value.uses() if node.op_type == "Conv") > 1


def _form(layer: linear.Linear) -> _Form:
    """What must be equal: kernel, strides, pads, dilations, number and type of inputs; defaults spelled out."""
    node, weight = layer.node, real_constant(layer.node.inputs[1])
    taps = () if weight is None else weight.shape[2:]
    ones = (1,) * len(taps)
    return (
        layer.inputs,
        layer.dtype,
        taps,
        tuple(node.attributes.get_ints("strides", ones)),
        tuple(node.attributes.get_ints("dilations", ones)),
        tuple(node.attributes.get_ints("pads", (0, 0) * len(taps))),
        node.attributes.get_string("auto_pad", "NOTSET"),
    )


def _merge(layers: Sequence[linear.Linear], editor: Editor) -> None:
    first = layers[0]
    whole = linear.Linear(
        first.node,
        np.concatenate([layer.weight for layer in layers], axis=1),
        np.concatenate([layer.bias for layer in layers]),
        first.dtype,
    )
    conv = whole.build(editor, first.node.inputs[0])
    if conv is None:
        raise ValueError(f"weights of {first.node.name!r} cannot be put back")
    join([[layer.node] for layer in layers], [conv], [layer.outputs for layer in layers], axis=1, editor=editor)
