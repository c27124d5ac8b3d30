"""A bias on the way past a normalization goes into it, where the sum with what is normalized is all that needs it.

With ``y = LayerNormalization(x, g, d)``, and ``b`` the bias of what is added to it::

    y + (z + b)     =  y' + z          y' = LayerNormalization(x, g, d + b)
    y W + c         =  y' W + (c - b W)

as in encoders that normalize last: both sums of every layer lose an addition. It is done where whatever else reads
``y`` is a linear layer with a bias of constants, or an attention that projects it, and where ``b`` is no larger than
what the normalization gives, or the difference would round too coarsely.

It comes last: a product in 8 bits takes its bias for nothing, and is more exact for what is normalized around zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.matching import MICROSOFT, made_by, operands
from openclaw.graph.passes.values import Array, constant, input_of, real_constant, sole_reader

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Sum:
    """``plus = normalized + (rest + bias)``, of which ``addition`` is the inner one."""

    plus: ir.Node
    addition: ir.Node
    rest: ir.Value
    bias: Floats


@dataclass(frozen=True)
class _Linear:
    """What reads the normalized and multiplies it with ``weight``; ``reader`` has the bias at ``place``."""

    reader: ir.Node
    place: int
    weight: Array


class ResidualBias(NodePass):
    """Moves biases of sums into the normalization before."""

    name = "residual-bias"
    operators = frozenset({"LayerNormalization"})
    final = True

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Looks at what reads a normalization with constant parameters."""
        scale, shift = real_constant(node.inputs[1]), real_constant(input_of(node, 2))
        normalized = node.outputs[0]
        if scale is None or shift is None or scale.ndim != 1 or normalized.is_graph_output():
            return False
        readers = {use.node for use in normalized.uses()}
        sums = [found for reader in readers if (found := _sum(reader, normalized, scale.size)) is not None]
        others = readers - {found.plus for found in sums}
        linear = [each for reader in others if (each := _linear(reader, normalized)) is not None]
        if len(sums) != 1 or len(linear) < len(others) or np.abs(sums[0].bias).max() > _largest(scale, shift):
            return False
        _move(sums[0], node, linear, editor=editor)
        return True


def _largest(scale: Array, shift: Array) -> float:
    """Three standard deviations of what comes out of the widest column."""
    return float(np.max(3 * np.abs(scale) + np.abs(shift)))


def _sum(reader: ir.Node, normalized: ir.Value, width: int) -> _Sum | None:
    if reader.domain != "" or reader.op_type != "Add" or reader.graph is not normalized.graph:
        return None
    for value, other in operands(reader):
        addition = made_by(other, "Add")
        if value is not normalized or addition is None or sole_reader(other) is not reader:
            continue
        for rest, row in operands(addition):
            bias = constant(row)
            if bias is not None and bias.dtype == np.float32 and bias.shape == (width,) and constant(rest) is None:
                return _Sum(reader, addition, rest, np.asarray(bias, np.float32))
    return None


def _linear(reader: ir.Node, normalized: ir.Value) -> _Linear | None:
    found = _READERS.get((reader.domain, reader.op_type))
    plain = [value is normalized for value in reader.inputs].count(True) == 1 and reader.inputs[0] is normalized
    if found is None or not plain or reader.graph is not normalized.graph:
        return None
    weight, place = constant(reader.inputs[1]), found(reader)
    if place is None or weight is None or weight.ndim != 2 or weight.dtype != np.float32:
        return None
    bias = constant(place[0].inputs[place[1]])
    fits = bias is not None and bias.dtype == np.float32 and bias.shape == weight.shape[1:]
    return _Linear(*place, weight) if fits else None


def _of_attention(node: ir.Node) -> tuple[ir.Node, int] | None:
    return (node, 2) if input_of(node, 2) is not None else None


def _of_product(node: ir.Node) -> tuple[ir.Node, int] | None:
    """The node that adds a row to a product, and where."""
    reader = sole_reader(node.outputs[0])
    if reader is None or (reader.domain, reader.op_type) not in _BIASED:
        return None
    places = [place for place, value in enumerate(reader.inputs[:2]) if value is not node.outputs[0]]
    return (reader, places[0]) if len(places) == 1 else None


_READERS: dict[tuple[str, str], Callable[[ir.Node], tuple[ir.Node, int] | None]] = {
    (MICROSOFT, "Attention"): _of_attention,
    ("", "MatMul"): _of_product,
}
_BIASED = {("", "Add"), (MICROSOFT, "BiasGelu"), (MICROSOFT, "FastGelu")}


def _move(found: _Sum, normalization: ir.Node, linear: list[_Linear], *, editor: Editor) -> None:
    for one in linear:
        _put(one.reader, one.place, _exactly(found.bias) @ -_exactly(one.weight), editor=editor)
    _put(normalization, 2, found.bias, editor=editor)
    result = found.addition.outputs[0]
    read = [value for value in found.addition.inputs if value is not None]
    for place, value in enumerate(found.plus.inputs):
        if value is result:
            found.plus.replace_input_with(place, found.rest)
    if found.addition.graph is not None:
        found.addition.graph.remove(found.addition, safe=True)
    editor.forget(read)


def _put(node: ir.Node, place: int, more: npt.NDArray[np.floating], *, editor: Editor) -> None:
    """Adds ``more`` to a row of constants that a node reads."""
    row = (_exactly(constant(node.inputs[place])) + more).astype(np.float32)
    editor.replace_constant(node, place, row, name=f"{node.name or node.op_type}/bias")


def _exactly(array: Array | None) -> npt.NDArray[np.float64]:
    return np.asarray(array, np.float64)
