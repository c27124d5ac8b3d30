"""Embedding tables in 8 bits: a scale for every row, so a rare word's vector is as exact as a common one's.

``Gather(table, i)`` becomes ``Cast(Gather(table8, i)) * Gather(scales, i)``. Nothing is added up in 8 bits, so this
costs almost no accuracy, and a quarter of the bytes are left of what is often half of a model.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.values import constant

SMALLEST = 65536
"""Numbers in a table below which 8 bits save nothing worth a node."""


def lower_tables(editor: Editor) -> int:
    """Lowers the tables of the main graph; how many."""
    count = 0
    for node in list(editor.model.graph):
        if node.domain == "" and node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0:
            count += _lower(editor, node)
    return count


def _lower(editor: Editor, node: ir.Node) -> int:
    given, indices = constant(node.inputs[0]), node.inputs[1]
    if given is None or given.dtype != np.float32 or given.ndim != 2 or given.size < SMALLEST:
        return 0
    table = np.asarray(given, np.float32)
    if not np.isfinite(table).all():
        return 0
    peaks = np.abs(table).max(axis=1, keepdims=True)
    scales = np.where(peaks > 1e-30, peaks / 127, np.float32(1)).astype(np.float32)
    whole = np.clip(np.rint(table / scales), -127, 127).astype(np.int8)
    name = node.name or "table"
    gathered = editor.node(
        "Gather", [editor.constant(whole, f"{name}/int8", near=node), indices], like=node, beside=True
    )
    real = editor.node("Cast", [gathered.outputs[0]], attributes={"to": int(ir.DataType.FLOAT)}, like=node)
    scale = editor.node(
        "Gather", [editor.constant(scales, f"{name}/scales", near=node), indices], like=node, beside=True
    )
    product = editor.node("Mul", [real.outputs[0], scale.outputs[0]], like=node)
    editor.replace([node], [gathered, real, scale, product], results={node.outputs[0]: product.outputs[0]})
    return 1
