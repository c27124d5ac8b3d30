"""Scaled dot-product attention that an exporter wrote out in single operators is one operator.

With q, k, v of shape (batch, length, heads * size), parted into heads::

    softmax(scale * q k^T + mask) v  =  MultiHeadAttention(q, k, v, attention_bias=mask, scale)

The scale may stand on the product, on q or on k, in any number of constant factors; it is always told, never left to
the default. What is masked stays what it was: an added mask, whatever made it, goes in as it is, widened to a row for
each query where it had one for all. ``where(keep, scores, -inf)`` becomes the mask ``where(keep, 0, -inf)``; that is
the same for -inf and for numbers so low that a score added to them is lost in rounding (a row that is masked as a
whole stays even), so it is not done for numbers above -1e30. Keys and values that are appended to a cache go in with
the cache, and the extended caches come out.

onnxruntime's own fusion looks for six fixed paths from a LayerNormalization backwards, believes that the divisor is
sqrt(size), and takes every mask for a padding mask of zeros and ones: it finds nothing in a MiniLM whose shapes are
computed, nor attention without a mask, and may change what others compute. What is required here is proved from
shapes: heads are parted and joined in the same way, batches are equal, and a mask has a batch of one or the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes.attention_pattern import Found, Masking, find
from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.dimensions import Dim, Dims, same
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.matching import MICROSOFT, in_order
from openclaw.graph.passes.symbolic import Shapes


class Attention(NodePass):
    """Finds attention in single operators."""

    name = "attention"
    operators = frozenset({"Softmax"})
    opsets = range(13, 29)

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Starts at a Softmax."""
        return _fuse(node, editor.shapes, editor)


def _fuse(softmax: ir.Node, shapes: Shapes, editor: Editor) -> bool:
    found = find(softmax, shapes)
    if found is None:
        return False
    builder = _Builder(editor, shapes, found.root)
    bias = builder.mask(found.masking, found)
    inputs = [found.query, found.key.source, found.value.source, None, None, bias, found.key.past, found.value.past]
    while inputs[-1] is None:
        inputs.pop()
    cached = found.key.present is not None
    new = editor.node(
        "MultiHeadAttention",
        inputs,
        attributes={"num_heads": found.heads, "scale": found.scale},
        like=found.root,
        outputs=3 if cached else 1,
        domain=MICROSOFT,
    )
    results = {found.root.outputs[0]: new.outputs[0]}
    if found.key.present is not None and found.value.present is not None:
        results |= {found.key.present: new.outputs[1], found.value.present: new.outputs[2]}
    # What makes the mask stays: other layers read it too, and dead code is somebody else's work.
    editor.replace(in_order(found.nodes), [*builder.nodes, new], results=results)
    editor.model.graph.opset_imports.setdefault(MICROSOFT, 1)
    return True


@dataclass
class _Builder:
    """Collects the nodes that make the mask of one attention."""

    editor: Editor
    shapes: Shapes
    like: ir.Node

    def __post_init__(self) -> None:
        self.nodes: list[ir.Node] = []

    def mask(self, masking: Masking, found: Found) -> ir.Value | None:
        """The whole mask, in the four dimensions that the operator asks for; None if there is none."""
        parts: list[tuple[ir.Value, Dims]] = []
        if masking.condition is not None:
            low = self._constant(np.float32(masking.low))
            zero = self._constant(np.float32(0))
            order = [zero, low] if masking.keeps else [low, zero]
            kept = self._node("Where", [masking.condition, *order])
            parts.append((kept, self.shapes.dims(masking.condition) or ()))
        if masking.added is not None:
            parts.append((masking.added, self.shapes.dims(masking.added) or ()))
        if not parts:
            return None
        value, dims = parts[0]
        for further, others in parts[1:]:
            value, dims = self._node("Add", [value, further]), _broadcast(dims, others)
        return self._widened(value, dims, found)

    def _widened(self, value: ir.Value, dims: Dims, found: Found) -> ir.Value:
        wide: Dims = (1,) * (4 - len(dims)) + dims
        if len(dims) == 4 and same(wide[2], found.queries) and same(wide[3], found.keys):
            return value
        rows = self._size(found.queries, found.query)
        one = self._constant(np.ones(1, np.int64))
        columns = one if same(wide[3], found.keys) else self._total(found)
        target = self._node("Concat", [one, one, rows, columns], axis=0)
        return self._node("Expand", [value, target])

    def _total(self, found: Found) -> ir.Value:
        length = self._size(found.key.length, found.key.source)
        if found.key.past is None:
            return length
        shape = self._node("Shape", [found.key.past])
        before = self._node("Gather", [shape, self._constant(np.array([2], np.int64))], axis=0)
        return self._node("Add", [before, length])

    def _size(self, size: Dim, source: ir.Value) -> ir.Value:
        """A size as a tensor, taken from an input of the model if one has it: then all layers share the nodes."""
        if isinstance(size, int):
            return self._constant(np.array([size], np.int64))
        axis = 1
        for value in self.editor.model.graph.inputs:
            dims = self.shapes.dims(value) or ()
            axes = [index for index, dim in enumerate(dims) if same(dim, size)]
            if axes:
                source, axis = value, axes[0]
                break
        shape = self._node("Shape", [source])
        return self._node("Gather", [shape, self._constant(np.array([axis], np.int64))], axis=0)

    def _constant(self, array: np.ndarray | np.generic) -> ir.Value:
        return self.editor.constant(np.asarray(array), f"{self.like.name or 'attention'}/mask", near=self.like)

    def _node(self, operator: str, inputs: list[ir.Value], **attributes: int) -> ir.Value:
        node = self.editor.node(operator, inputs, attributes=attributes, like=self.like)
        self.nodes.append(node)
        return node.outputs[0]


def _broadcast(left: Dims, right: Dims) -> Dims:
    rank = max(len(left), len(right))
    wide = [(1,) * (rank - len(dims)) + dims for dims in (left, right)]
    return tuple(b if a == 1 else a for a, b in zip(*wide, strict=True))
