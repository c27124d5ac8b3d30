"""Reading patterns off a graph: numbers among constants, attributes, operands in either order, who else reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes.values import constant, constant_tensor, input_of

MICROSOFT = "com.microsoft"
"""Domain of operators that every build of onnxruntime has."""


def scalar(value: ir.Value | None) -> float | None:
    """The number in a constant of one element that cannot raise the rank of what it meets, or None."""
    tensor = constant_tensor(value)
    if tensor is None or tensor.size != 1 or len(tensor.shape) > 1:
        return None
    array = np.asarray(tensor.numpy())
    if array.dtype.kind not in "fiu":
        return None
    return float(array.reshape(-1)[0])


def close(number: float | None, wanted: float) -> bool:
    """Whether a number is ``wanted`` but for the rounding of an exporter that computed in float32."""
    return number is not None and abs(number - wanted) <= 1e-6 * abs(wanted)


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute of a node."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def integers(node: ir.Node, name: str) -> tuple[int, ...] | None:
    """A list of integers among a node's attributes, or None where it is left out."""
    attribute = node.attributes.get(name)
    return None if attribute is None else tuple(attribute.as_ints())


def axes(node: ir.Node) -> tuple[int, ...] | None:
    """The axes of a reduction, Squeeze or Unsqueeze, in the attribute or the input; None if left out or computed."""
    given = integers(node, "axes")
    if given is not None:
        return given
    array = constant(input_of(node, 1))
    return None if array is None else tuple(int(axis) for axis in array.reshape(-1))


def operands(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Both orders of the operands of a commutative node."""
    first, second = node.inputs
    if first is not None and second is not None:
        yield first, second
        yield second, first


def made_by(value: ir.Value | None, operator: str, domain: str = "") -> ir.Node | None:
    """The node that makes ``value`` as its first output, if it is ``operator``."""
    node = None if value is None else value.producer()
    fits = node is not None and node.op_type == operator and node.domain == domain and value is node.outputs[0]
    return node if fits else None


def enclosed(inner: Sequence[ir.Node], root: ir.Node) -> bool:
    """Whether all are in one graph and nobody but ``inner`` and ``root`` reads what ``inner`` makes."""
    inside = {*inner, root}
    return all(
        node.graph is root.graph
        and not any(
            value.is_graph_output() or any(use.node not in inside for use in value.uses()) for value in node.outputs
        )
        for node in inner
    )


def in_order(nodes: Sequence[ir.Node]) -> list[ir.Node]:
    """Nodes of one graph, each once, in its order."""
    wanted = set(nodes)
    graph = nodes[0].graph
    return [] if graph is None else [node for node in graph if node in wanted]
