"""Two nodes that compute the same are one, and so are two initializers that hold the same.

Nodes are the same if operator, inputs and attributes are: what is computed twice from the same values is computed
once. Left alone are operators whose results are random, operators with bodies, and those of domains other than
ONNX's and onnxruntime's, which may keep a state. Two nodes in different graphs are left alone too: one branch of an If
may never run. onnx-ir's own pass merges Bernoulli and nodes that leave out different outputs, which is wrong.

Initializers are compared by type, shape and bytes; those that a caller may override or that are outputs stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

import onnx_ir as ir

from openclaw.graph.passes.contract import GraphPass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.matching import MICROSOFT

RANDOM = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "BiasDropout",
        "BitmaskBiasDropout",
        "BitmaskDropout",
        "Sampling",
    }
)
"""Operators that may give other values when they run again."""


class CommonSubexpressions(GraphPass):
    """Merges equal initializers and equal nodes."""

    name = "common-subexpression"

    def rewrite(self, editor: Editor) -> int:
        """Goes through each graph once: in its order, what a node reads was merged before it."""
        return sum(_merge_initializers(graph) + _merge_nodes(graph) for graph in editor.model.graphs())


def _merge_initializers(graph: ir.Graph) -> int:
    alike: dict[Hashable, list[tuple[ir.Value, ir.TensorProtocol]]] = {}
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or value.is_graph_output() or tensor.dtype == ir.DataType.STRING:
            continue
        alike.setdefault((tensor.dtype, tuple(tensor.shape), _sample(tensor)), []).append((value, tensor))
    return sum(_merge_alike(values, graph) for values in alike.values() if len(values) > 1)


def _sample(tensor: ir.TensorProtocol) -> bytes:
    """Some bytes from all over: most weights differ in them, and so need not be read as a whole."""
    data = tensor.tobytes()
    return data[:: max(1, len(data) // 251)]


def _merge_alike(values: Sequence[tuple[ir.Value, ir.TensorProtocol]], graph: ir.Graph) -> int:
    kept: dict[bytes, ir.Value] = {}
    merged = 0
    for value, tensor in values:
        first = kept.setdefault(hashlib.sha256(tensor.tobytes()).digest(), value)
        if first is not value and value.name is not None:
            value.replace_all_uses_with(first)
            graph.initializers.pop(value.name)
            merged += 1
    return merged


def _merge_nodes(graph: ir.Graph) -> int:
    kept: dict[Hashable, ir.Node] = {}
    merged = 0
    for node in graph:
        key = _key(node)
        if key is None:
            continue
        first = kept.setdefault(key, node)
        if first is not node and not any(value.is_graph_output() for value in node.outputs):
            for old, new in zip(node.outputs, first.outputs, strict=True):
                old.replace_all_uses_with(new)
            graph.remove(node, safe=True)
            merged += 1
    return merged


def _key(node: ir.Node) -> Hashable | None:
    if node.domain not in ("", MICROSOFT) or node.op_type in RANDOM:
        return None
    attributes = []
    for name in sorted(node.attributes):
        attribute = node.attributes[name]
        if attribute.is_ref() or attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            return None
        attributes.append(ir.serde.serialize_attribute(attribute).SerializeToString(deterministic=True))
    outputs = tuple(value.name == "" for value in node.outputs)
    return node.op_identifier(), tuple(map(id, node.inputs)), outputs, tuple(attributes)
