"""What does not depend on any input is computed now, unless the file would grow.

All nodes whose inputs are constants, and nodes that read only such nodes, are run once, by onnxruntime itself with its
own optimizations off, so the constants are what a run of the model would have computed. Left alone are operators whose
results are random, operators with bodies, foreign domains, quantized constants (they are small because nobody computed
them), and what a caller may override. A result is kept only if its size is known before and it takes at most
``GROWTH`` bytes more than the constants that go with it: a large array that is cheap to make stays a recipe.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime

from openclaw.graph.passes.common_subexpressions import RANDOM
from openclaw.graph.passes.contract import GraphPass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.matching import MICROSOFT
from openclaw.graph.passes.symbolic import Shapes
from openclaw.graph.passes.values import constant, constant_tensor

GROWTH = 16 * 1024
"""Bytes that folding one result may add to the file."""

_LEFT = RANDOM | {"Constant", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
_TYPES = frozenset(
    {
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT16,
        ir.DataType.BOOL,
        ir.DataType.INT8,
        ir.DataType.INT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.UINT8,
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
    }
)
Array = npt.NDArray[np.generic]


class ConstantFolding(GraphPass):
    """Computes what is constant."""

    name = "constant-folding"

    def rewrite(self, editor: Editor) -> int:
        """Folds one layer after another: what a result is made from may be foldable itself."""
        shapes, folded = editor.shapes, 0
        for graph in editor.model.graphs():
            for node in tuple(graph):
                if node.graph is graph and _can_fold(node, shapes) and _fold(node, editor):
                    folded += 1
        return folded


def _can_fold(node: ir.Node, shapes: Shapes) -> bool:
    if node.domain not in ("", MICROSOFT) or node.op_type in _LEFT or not node.inputs:
        return False
    if any(
        one.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) or one.is_ref()
        for one in node.attributes.values()
    ):
        return False
    inputs = [value for value in node.inputs if value is not None]
    if any(constant_tensor(value) is None or shapes.dtype(value) not in _TYPES for value in inputs):
        return False
    size = _bytes(node.outputs, shapes)
    return size is not None and size <= GROWTH + sum(_freed(value) for value in set(inputs))


def _bytes(values: Iterable[ir.Value], shapes: Shapes) -> int | None:
    """Of all values together; None if a size or type is not known."""
    total = 0
    for value in values:
        if value.name == "":
            continue
        dims, kind = shapes.dims(value), shapes.dtype(value)
        if dims is None or kind not in _TYPES or not all(isinstance(dim, int) for dim in dims):
            return None
        total += math.prod(dim for dim in dims if isinstance(dim, int)) * math.ceil(kind.itemsize)
    return total


def _freed(value: ir.Value) -> int:
    """Bytes of a constant that goes away with its only reader."""
    tensor = constant_tensor(value)
    return 0 if tensor is None or len(value.uses()) > 1 or value.is_graph_output() else int(tensor.nbytes)


def _fold(node: ir.Node, editor: Editor) -> bool:
    if any(value.is_graph_output() for value in node.outputs):
        return False
    results = _run(node, editor)
    graph = node.graph
    if results is None or not isinstance(graph, ir.Graph):
        return False
    for old, array in results.items():
        old.replace_all_uses_with(editor.constant(array, old.name or node.op_type, near=node))
    inputs = [value for value in node.inputs if value is not None]
    graph.remove(node, safe=True)
    editor.forget(inputs)
    return True


def _run(node: ir.Node, editor: Editor) -> dict[ir.Value, Array] | None:
    """What the node computes; None where onnxruntime cannot say."""
    wanted = [value for value in node.outputs if value.name != ""]
    inputs = {value.name or "": constant(value) for value in node.inputs if value is not None}
    copies = {value: ir.Value(name=value.name, type=value.type, shape=value.shape) for value in node.inputs if value}
    for value, copy in copies.items():
        array = constant(value)
        if array is not None:
            copy.type, copy.shape = ir.TensorType(ir.DataType.from_numpy(array.dtype)), ir.Shape(array.shape)
    outputs = [ir.Value(name=value.name) for value in node.outputs]
    single = ir.Node(
        node.domain,
        node.op_type,
        [None if value is None else copies[value] for value in node.inputs],
        list(node.attributes.values()),
        outputs=outputs,
    )
    graph = ir.Graph(
        list(copies.values()),
        [value for value in outputs if value.name != ""],
        nodes=[single],
        opset_imports=dict(editor.model.opset_imports),
        name="constant",
    )
    model = ir.to_proto(ir.Model(graph, ir_version=min(editor.model.ir_version, 10)))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = session.run(None, inputs)
    except Exception:  # onnxruntime's exceptions have no common base below Exception; what it cannot run stays.
        return None
    return dict(zip(wanted, map(np.asarray, found), strict=True))
