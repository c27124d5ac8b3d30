"""What a model holds, wherever it is: in its graph, in graphs nested in it, and in functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx

_ONNX = frozenset(("", "ai.onnx"))


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Initializers, and tensors in attributes."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for graph in nested(node):
            yield from _of_graph(graph)


def nested(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that are attributes of a node: branches of an If, the body of a Loop or Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def count_nodes(graph: onnx.GraphProto) -> int:
    """Nodes of a graph and of those nested in it."""
    return len(graph.node) + sum(count_nodes(inner) for node in graph.node for inner in nested(node))


def count_computing(graph: onnx.GraphProto) -> int:
    """As :func:`count_nodes`, without constants, which exporters write as nodes or as weights."""
    own = sum(node.op_type != "Constant" for node in graph.node)
    return own + sum(count_computing(inner) for node in graph.node for inner in nested(node))


def portable(model: onnx.ModelProto) -> bool:
    """Whether it uses ONNX's operators alone: another engine would have to hand onnxruntime's own ones back."""
    return all(node.domain in _ONNX for node in model.graph.node) and not model.functions
