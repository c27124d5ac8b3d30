"""The matrix layers of a graph: products with a constant matrix, with the bias that is added to them.

``MatMul(x, w)``, then ``Add(bias)`` where nothing else reads the product; ``Gemm(x, w, c)`` with any factors; and
onnxruntime's ``Attention(x, w, bias)``, which begins with such a product. Only the main graph is looked at: what runs
in the bodies of If, Loop and Scan stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from openclaw.graph.passes.values import constant, input_of, rank_of, sole_reader

Floats = npt.NDArray[np.float32]

MICROSOFT = "com.microsoft"
SMALLEST = 1024
"""Weights of a matrix below which 8 bits save nothing."""


@dataclass(frozen=True)
class Layer:
    """One product with a constant matrix.

    Attributes:
        name: of the node, unique in the graph.
        x: what is multiplied.
        out: the product with its bias.
        weight: [inputs, outputs].
        bias: [outputs], or None.
        nodes: that compute it, in order.
        attention: the attributes of the ``Attention`` that the product is the beginning of.
        mask: of that attention.
    """

    name: str
    x: ir.Value
    out: ir.Value
    weight: Floats
    bias: Floats | None
    nodes: tuple[ir.Node, ...]
    attention: Mapping[str, ir.Attr] | None = field(default=None)
    mask: ir.Value | None = None


@dataclass(frozen=True)
class Group:
    """Layers that multiply the same value: they share its scale, and are lowered or left together."""

    name: str
    x: ir.Value
    layers: tuple[Layer, ...]

    @property
    def weight(self) -> Floats:
        """All their weights side by side."""
        return np.concatenate([layer.weight for layer in self.layers], axis=1)


def groups(graph: ir.Graph) -> list[Group]:
    """All matrix layers, by what they multiply, in the graph's order."""
    found: dict[ir.Value, list[Layer]] = {}
    for layer in layers(graph):
        found.setdefault(layer.x, []).append(layer)
    return [Group(members[0].name, x, tuple(members)) for x, members in found.items()]


def layers(graph: ir.Graph) -> Iterator[Layer]:
    """Every matrix layer, in the graph's order."""
    for node in graph:
        layer = None
        if node.domain == "" and node.op_type == "MatMul":
            layer = _matmul(node)
        elif node.domain == "" and node.op_type == "Gemm":
            layer = _gemm(node)
        elif node.domain == MICROSOFT and node.op_type == "Attention":
            layer = _attention(node)
        if layer is not None and layer.weight.size >= SMALLEST and np.isfinite(layer.weight).all():
            yield layer


def _matrix(value: ir.Value | None) -> Floats | None:
    array = constant(value)
    if array is None or array.dtype != np.float32 or array.ndim != 2:
        return None
    return np.asarray(array, np.float32)


def _matmul(node: ir.Node) -> Layer | None:
    x, weight = node.inputs[0], _matrix(node.inputs[1])
    if x is None or weight is None or constant(x) is not None or rank_of(x) == 1:
        return None
    name, out = node.name or "", node.outputs[0]
    bias, add = _added(out, weight.shape[1])
    if add is None:
        return Layer(name, x, out, weight, None, (node,))
    return Layer(name, x, add.outputs[0], weight, bias, (node, add))


def _added(product: ir.Value, width: int) -> tuple[Floats | None, ir.Node | None]:
    """A bias that is all the product is read for, and the node that adds it."""
    add = sole_reader(product)
    if add is None or add.domain != "" or add.op_type != "Add":
        return None, None
    bias = constant(next((value for value in add.inputs if value is not product), None))
    if bias is None or bias.shape != (width,) or bias.dtype != np.float32:
        return None, None
    return np.asarray(bias, np.float32), add


def _gemm(node: ir.Node) -> Layer | None:
    x, weight = node.inputs[0], _matrix(node.inputs[1])
    if x is None or weight is None or constant(x) is not None or node.attributes.get_int("transA", 0) != 0:
        return None
    weight = weight.T if node.attributes.get_int("transB", 0) != 0 else weight
    weight = weight * np.float32(node.attributes.get_float("alpha", 1.0))
    given = input_of(node, 2)
    bias = None
    if given is not None:
        array = constant(given)
        if array is None or array.dtype != np.float32 or array.size not in (1, weight.shape[1]) or array.ndim > 2:
            return None
        if array.ndim == 2 and array.shape[0] != 1:
            return None
        flat = np.broadcast_to(array.reshape(-1), (weight.shape[1],))
        bias = np.asarray(flat, np.float32) * np.float32(node.attributes.get_float("beta", 1.0))
    return Layer(node.name or "", x, node.outputs[0], np.ascontiguousarray(weight), bias, (node,))


def _attention(node: ir.Node) -> Layer | None:
    x, weight, bias = node.inputs[0], _matrix(node.inputs[1]), constant(input_of(node, 2))
    plain = all(input_of(node, index) is None for index in (4, 5, 6)) and len(node.outputs) == 1
    known = {"num_heads", "mask_filter_value", "scale", "unidirectional"}
    if x is None or weight is None or bias is None or not plain or not set(node.attributes) <= known:
        return None
    return Layer(
        node.name or "",
        x,
        node.outputs[0],
        weight,
        np.asarray(bias, np.float32),
        (node,),
        attention=dict(node.attributes),
        mask=input_of(node, 3),
    )
