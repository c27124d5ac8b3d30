"""The elements of small integer tensors, operator by operator, from the known and elements of what they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import onnx_ir as ir

from openclaw.graph.passes.dimensions import Dim, Dims, clamped
from openclaw.graph.passes.matching import integer

_INTEGERS = (ir.DataType.INT64.value, ir.DataType.INT32.value)


class Known(Protocol):
    """What is known so far."""

    def dims(self, value: ir.Value | None) -> Dims | None:
        """The shape of a tensor."""

    def elements(self, value: ir.Value | None) -> tuple[Dims, int] | None:
        """The elements of an integer tensor, and its rank: 0 or 1."""


Found = tuple[Dims, int] | None


def _shape(known: Known, node: ir.Node) -> Found:
    dims = known.dims(node.inputs[0])
    if dims is None:
        return None
    return dims[slice(integer(node, "start", 0), integer(node, "end", len(dims)))], 1


def _gather(known: Known, node: ir.Node) -> Found:
    source, indices = known.elements(node.inputs[0]), known.elements(node.inputs[1])
    if source is None or indices is None or source[1] != 1 or integer(node, "axis", 0) not in (0, -1):
        return None
    picked: list[Dim] = []
    for index in indices[0]:
        if not isinstance(index, int) or not -len(source[0]) <= index < len(source[0]):
            return None
        picked.append(source[0][index])
    return tuple(picked), indices[1]


def _concat(known: Known, node: ir.Node) -> Found:
    parts = [known.elements(value) for value in node.inputs]
    if any(part is None or part[1] != 1 for part in parts):
        return None
    return tuple(item for part in parts if part is not None for item in part[0]), 1


def _unsqueeze(known: Known, node: ir.Node) -> Found:
    source = known.elements(node.inputs[0])
    return (source[0], 1) if source is not None and source[1] == 0 and _count_axes(known, node) == 1 else None


def _squeeze(known: Known, node: ir.Node) -> Found:
    source = known.elements(node.inputs[0])
    return (source[0], 0) if source is not None and source[1] == 1 and len(source[0]) == 1 else None


def _count_axes(known: Known, node: ir.Node) -> int:
    if len(node.inputs) > 1:
        axes = known.elements(node.inputs[1])
        return len(axes[0]) if axes is not None else -1
    attr = node.attributes.get("axes")
    return len(attr.as_ints()) if attr is not None else -1


def _same_value(known: Known, node: ir.Node) -> Found:
    source = known.elements(node.inputs[0])
    if node.op_type == "Cast" and integer(node, "to", 0) not in _INTEGERS:
        return None
    return source


def _slice(known: Known, node: ir.Node) -> Found:
    source = known.elements(node.inputs[0])
    bounds = [known.elements(value) for value in node.inputs[1:]]
    if source is None or source[1] != 1 or not 2 <= len(bounds) <= 4:
        return None
    numbers = [bound[0][0] if bound is not None and len(bound[0]) == 1 else None for bound in bounds]
    start, end = numbers[0], numbers[1]
    axis = numbers[2] if len(numbers) > 2 else 0
    step = numbers[3] if len(numbers) > 3 else 1
    if axis not in (0, -1) or not isinstance(start, int) or not isinstance(end, int) or not isinstance(step, int):
        return None
    # Backwards, and from the end, bounds are clamped in another way.
    return (source[0][clamped(start, len(source[0])) : clamped(end, len(source[0])) : step], 1) if step > 0 else None


def _arithmetic(operate: Callable[[Dim, Dim], Dim | None]) -> Callable[[Known, ir.Node], Found]:
    def rule(known: Known, node: ir.Node) -> Found:
        left, right = (known.elements(value) for value in node.inputs)
        if left is None or right is None:
            return None
        width = max(len(left[0]), len(right[0]))
        if {len(left[0]), len(right[0])} - {1, width}:
            return None
        pairs = zip(left[0] * (width // len(left[0])), right[0] * (width // len(right[0])), strict=True)
        results = [operate(a, b) for a, b in pairs]
        if any(result is None for result in results):
            return None
        return tuple(result for result in results if result is not None), max(left[1], right[1])

    return rule


def _divided(left: Dim, right: Dim) -> Dim | None:
    """Integer division rounds towards zero in ONNX and down here: they agree from zero up."""
    if not isinstance(right, int) or right <= 0:
        return None
    if isinstance(left, int):
        return left // right if left >= 0 else None
    return left // right


RULES: Mapping[str, Callable[[Known, ir.Node], Found]] = {
    "Shape": _shape,
    "Gather": _gather,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Cast": _same_value,
    "Identity": _same_value,
    "Slice": _slice,
    "Add": _arithmetic(lambda a, b: a + b),
    "Sub": _arithmetic(lambda a, b: a - b),
    "Mul": _arithmetic(lambda a, b: a * b),
    "Div": _arithmetic(_divided),
}
