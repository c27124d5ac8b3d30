"""Embedding tables in 8 bits: a scale for every row, so a rare word's vector is as exact as a common one's.

``Gather(table, i)`` becomes ``Cast(Gather(table8, i)) * Gather(scales, i)``, and so does a ``Slice`` of a table, as of
positions up to the length of what is read. Nothing is added up in 8 bits, so this costs almost no accuracy, and a
quarter of the bytes are left of what is often half of a model.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.values import constant, input_of

SMALLEST = 65536
"""Numbers in a table below which 8 bits save nothing worth a node."""


def lower_tables(editor: Editor) -> int:
    """Lowers the tables of the main graph; how many."""
    count = 0
    for node in list(editor.model.graph):
        table = _table(node)
        if table is not None and _takes_rows(node, table.ndim):
            _lower(editor, node, table)
            count += 1
    return count


def _table(node: ir.Node) -> npt.NDArray[np.float32] | None:
    """The table that a node reads from, worth lowering."""
    if node.domain != "" or node.op_type not in ("Gather", "Slice"):
        return None
    given = constant(node.inputs[0])
    if given is None or given.dtype != np.float32 or given.ndim < 2 or given.size < SMALLEST:
        return None
    table = np.asarray(given, np.float32)
    return table if np.isfinite(table).all() else None


def _takes_rows(node: ir.Node, rank: int) -> bool:
    """Whether whole rows are read: nothing is chosen along the last axis."""
    if node.op_type == "Gather":
        return node.attributes.get_int("axis", 0) == 0 and rank == 2
    axes, starts = constant(input_of(node, 3)), constant(input_of(node, 1))
    if axes is None:
        return input_of(node, 3) is None and starts is not None and starts.size < rank
    return not any(axis in (-1, rank - 1) for axis in axes.reshape(-1).tolist())


def _lower(editor: Editor, node: ir.Node, table: npt.NDArray[np.float32]) -> None:
    peaks = np.abs(table).max(axis=-1, keepdims=True)
    scales = np.where(peaks > 1e-30, peaks / 127, np.float32(1)).astype(np.float32)
    whole = np.clip(np.rint(table / scales), -127, 127).astype(np.int8)
    name = node.name or "table"
    read = []
    for array, called in ((whole, "int8"), (scales, "scales")):
        inputs = [editor.constant(array, f"{name}/{called}", near=node), *node.inputs[1:]]
        read.append(editor.node(node.op_type, inputs, like=node, beside=True))
    real = editor.node("Cast", [read[0].outputs[0]], attributes={"to": int(ir.DataType.FLOAT)}, like=node)
    product = editor.node("Mul", [real.outputs[0], read[1].outputs[0]], like=node)
    editor.replace([node], [read[0], real, read[1], product], results={node.outputs[0]: product.outputs[0]})
