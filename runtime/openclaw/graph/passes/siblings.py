"""Layers that read the same value put together: one node for all, and a Split behind it.

A curve that the result of each goes through is drawn once, before the split: so it can go on being computed with the
layer, as onnxruntime does with a Conv's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes.editing import Attribute, Editor
from openclaw.graph.passes.values import sole_reader

_SPLIT_TAKES_SIZES_AS_INPUT = 13
_CURVES = frozenset(
    {"Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Tanh"}
)


def join(
    siblings: Sequence[Sequence[ir.Node]], whole: Sequence[ir.Node], sizes: Sequence[int], *, axis: int, editor: Editor
) -> None:
    """Puts ``whole`` in the place of all siblings, and splits its result.

    Args:
        siblings: the nodes of each, in order; the last one makes its result. All are in one graph.
        whole: new nodes, in order; the last one makes all results side by side.
        sizes: of the parts.
        axis: along which they lie.
        editor: of the model.
    """
    first = siblings[0][0]
    graph = first.graph
    if not isinstance(graph, ir.Graph):
        raise ValueError(f"node {first.name!r} is in no graph")
    results = [nodes[-1].outputs[0] for nodes in siblings]
    curves = _common_curve(results)
    new = list(whole)
    new[-1].outputs[0].type = results[0].type
    if curves:
        attributes: dict[str, Attribute | ir.Attr] = dict(curves[0].attributes)
        new.append(editor.node(curves[0].op_type, [new[-1].outputs[0]], attributes=attributes, like=curves[0]))
        new[-1].outputs[0].type = curves[0].outputs[0].type
    split = _split(new[-1], sizes, axis=axis, near=first, editor=editor)
    # Before the first of them: what it reads is there, and all readers of all of them come later.
    graph.insert_before(first, [*new, split])
    for index, part in enumerate(split.outputs):
        old = [*siblings[index], *curves[index : index + 1]]
        editor.replace(old, [], results={old[-1].outputs[0]: part})


def _common_curve(values: Sequence[ir.Value]) -> list[ir.Node]:
    """The curve that alone reads each value, if it is the same for all; else none."""
    readers = [sole_reader(value) for value in values]
    curves = [node for node in readers if node is not None and node.domain == "" and node.op_type in _CURVES]
    same = len({(node.op_type, _told(node)) for node in curves}) == 1
    return curves if len(curves) == len(values) and same else []


def _told(node: ir.Node) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, str(attribute.value)) for name, attribute in node.attributes.items()))


def _split(node: ir.Node, sizes: Sequence[int], *, axis: int, near: ir.Node, editor: Editor) -> ir.Node:
    inputs, attributes = [node.outputs[0]], dict[str, Attribute](axis=axis)
    if editor.opset < _SPLIT_TAKES_SIZES_AS_INPUT:
        attributes["split"] = list(sizes)
    else:
        inputs.append(editor.constant(np.array(sizes, np.int64), f"{near.name or 'joined'}_sizes", near=near))
    return editor.node("Split", inputs, attributes=attributes, like=near, outputs=len(sizes))
