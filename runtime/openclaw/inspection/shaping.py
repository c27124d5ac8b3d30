"""Shapes of all tensors of a graph, for given sizes of its free dimensions, without running it.

``onnx.shape_inference`` alone stops where an exporter computes a shape in the graph (Shape, Gather, Concat, Reshape).
Here each node is inferred with the values of its small inputs, and small tensors are computed on the way. What cannot
be told stays unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, TypeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from openclaw.inspection.contrib import outputs
from openclaw.inspection.operators import attribute, bodies
from openclaw.inspection.tensors import Shape, Tensor

Values = npt.NDArray[np.generic]

_SMALL = 1024
"""Elements up to which a tensor may be somebody's shape."""


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known of a graph's tensors: by name, what they are, and the values of small ones.

    Attributes:
        assumed: free dimensions of the inputs, by name, and the sizes that they were taken to have.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Values] = field(default_factory=dict)
    assumed: dict[str, int] = field(default_factory=dict)


def shaped(model: onnx.ModelProto, shapes: Mapping[str, Shape] | None = None) -> Known:
    """What can be told of the main graph's tensors.

    Args:
        model: its nodes in an order in which they can run; weights may be without their data where they are large.
        shapes: of inputs; free dimensions of others have the size that the same name has there, or 1.
    """
    known = Known()
    graph = model.graph
    weights = {each.name: each for each in graph.initializer}
    for name, weight in weights.items():
        known.tensors[name] = Tensor(weight.data_type, tuple(weight.dims))
        if _readable(weight):
            known.values[name] = numpy_helper.to_array(weight)
    _take_inputs(known, [each for each in graph.input if each.name not in weights], shapes or {})
    said = {each.name: each.type for each in (*graph.value_info, *graph.output)}
    opsets = {each.domain: each.version for each in model.opset_import}
    walk = _Walk(known, opsets, model.ir_version, said)
    for node in graph.node:
        walk.take(node)
    return known


def _readable(weight: onnx.TensorProto) -> bool:
    inside = weight.data_location != TensorProto.EXTERNAL and weight.data_type != TensorProto.STRING
    return inside and math.prod(weight.dims) <= _SMALL


def _take_inputs(known: Known, inputs: list[onnx.ValueInfoProto], shapes: Mapping[str, Shape]) -> None:
    for each in inputs:
        for dimension, size in zip(each.type.tensor_type.shape.dim, shapes.get(each.name, ()), strict=False):
            if dimension.dim_param:
                known.assumed[dimension.dim_param] = size
    for each in inputs:
        kind = each.type.tensor_type
        given = shapes.get(each.name)
        if each.type.WhichOneof("value") != "tensor_type" or (given is None and not kind.HasField("shape")):
            continue
        shape = given or tuple(_sized(known, dimension) for dimension in kind.shape.dim)
        known.tensors[each.name] = Tensor(kind.elem_type, tuple(shape))


def _sized(known: Known, dimension: onnx.TensorShapeProto.Dimension) -> int:
    if dimension.HasField("dim_value"):
        return int(dimension.dim_value)
    return known.assumed.setdefault(dimension.dim_param or "?", 1)


@dataclass(frozen=True, slots=True)
class _Walk:
    """Goes through the nodes in order, and adds to what is known.

    Attributes:
        said: types that the file has for tensors, used where nothing better is found.
    """

    known: Known
    opsets: Mapping[str, int]
    ir_version: int
    said: Mapping[str, TypeProto]

    def take(self, node: onnx.NodeProto) -> None:
        """One node: its outputs' types, and their values where they are small and can be computed."""
        found = self._inferred(node)
        for name in filter(None, node.output):
            tensor = found.get(name) or self._as_said(name)
            if tensor is not None:
                self.known.tensors[name] = tensor
        self._compute(node)

    def _inferred(self, node: onnx.NodeProto) -> Mapping[str, Tensor]:
        if node.domain not in ("", "ai.onnx"):
            inputs = [self.known.tensors.get(name) for name in node.input]
            return outputs(node, inputs, self._standard)
        return self._standard(node)

    def _standard(self, node: onnx.NodeProto) -> Mapping[str, Tensor]:
        if any(bodies(node)):
            return {}
        types = {name: self.known.tensors[name] for name in node.input if name in self.known.tensors}
        if any(name and name not in types for name in node.input):
            return {}
        values = {name: self.known.values[name] for name in node.input if name in self.known.values}
        version = self.opsets.get("", self.opsets.get("ai.onnx", 1))
        try:
            schema = onnx.defs.get_schema(node.op_type, version, "")
            found = onnx.shape_inference.infer_node_outputs(
                schema,
                node,
                {name: helper.make_tensor_type_proto(each.datatype, each.shape) for name, each in types.items()},
                {name: numpy_helper.from_array(each, name) for name, each in values.items()},
                opset_imports=[helper.make_opsetid("", version)],
                ir_version=self.ir_version,
            )
        except (onnx.defs.SchemaError, onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            # An operator that this version of onnx does not know, or one that would fail if it ran.
            return {}
        whole = {name: _whole(each) for name, each in found.items()}
        return {name: each for name, each in whole.items() if each is not None}

    def _as_said(self, name: str) -> Tensor | None:
        said = self.said.get(name)
        return _whole(said, self.known.assumed) if said else None

    def _compute(self, node: onnx.NodeProto) -> None:
        values, tensors = self.known.values, self.known.tensors
        outputs = [name for name in node.output if name]
        if any(name not in tensors or tensors[name].elements > _SMALL for name in outputs):
            return
        if node.op_type == "Shape" and node.input[0] in tensors:
            shape = tensors[node.input[0]].shape[attribute(node, "start", 0) : attribute(node, "end")]
            values[outputs[0]] = np.array(shape, np.int64)
        elif all(name in values or not name for name in node.input) and node.domain == "" and not any(bodies(node)):
            try:
                with np.errstate(all="ignore"):
                    run = ReferenceEvaluator(node, opsets=dict(self.opsets))
                    got = run.run(None, {name: values[name] for name in node.input if name})
            except Exception:
                # The reference implementation raises whatever Python does on operators and inputs that it cannot take.
                return
            made = zip(outputs, got, strict=False)
            values.update({name: np.asarray(each) for name, each in made if isinstance(each, np.ndarray | np.generic)})


def _whole(said: TypeProto, sizes: Mapping[str, int] | None = None) -> Tensor | None:
    """The type as a tensor whose shape is known to the end; else None."""
    kind = said.tensor_type
    if said.WhichOneof("value") != "tensor_type" or not kind.HasField("shape"):
        return None
    shape = []
    for dimension in kind.shape.dim:
        size = dimension.dim_value if dimension.HasField("dim_value") else (sizes or {}).get(dimension.dim_param)
        if size is None:
            return None
        shape.append(int(size))
    return Tensor(kind.elem_type, tuple(shape))
