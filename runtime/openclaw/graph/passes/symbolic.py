"""Shapes with names for what is not known yet, and the integers that a graph computes from them.

Every tensor gets a shape whose dimensions are numbers or expressions in the names of the model's free dimensions
(``N``, ``S``, ``past + S``); a dimension that nothing is known about gets a name of its own, so it equals itself and
nothing else. Every small integer tensor that comes from shapes and constants gets its elements in the same words:
``Concat(Gather(Shape(x), 0), 12)`` is ``[N, 12]``.

Shapes of single operators come from onnx's own inference, fed node by node in order, because the shape that a Reshape
is given is only known here. Nothing is believed that the file merely claims about inner values (``value_info``), and
of inputs only what they must satisfy to be accepted. Two inputs' dimensions of one name are the same size, as the
ONNX specification says. Bodies of control flow are read with what they capture; what they give out stays unknown.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from openclaw.graph.passes.dimensions import Dim, Dims, clamped, expanded, reshaped, same
from openclaw.graph.passes.matching import integer
from openclaw.graph.passes.shape_values import RULES
from openclaw.graph.passes.values import constant, constant_tensor

_MAX_TRACKED = 64  # elements of an integer tensor: shapes are shorter
_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)
_MAX_SHOWN = 1024  # elements of a constant that operators' inference may look at (axes, repeats, sizes)


class Shapes:
    """What is known about the shapes and shape arithmetic of a model; a snapshot, taken when it is made.

    Args:
        model: is only read.
        given: sizes of the model's inputs that are fixed from now on, by name.
    """

    def __init__(self, model: ir.Model, given: Mapping[str, Sequence[int]] | None = None) -> None:
        self._types: dict[ir.Value, onnx.TypeProto] = {}
        self._dims: dict[ir.Value, Dims] = {}
        self._elements: dict[ir.Value, tuple[Dims, int]] = {}
        self._at_most: dict[ir.SymbolicDim, Dim] = {}
        self._fresh = itertools.count()
        self._opsets = model.graph.opset_imports
        fixed = given or {}
        for value in model.graph.inputs:
            self._enter(value, fixed.get(value.name or ""))
        self._read(model.graph)

    def dims(self, value: ir.Value | None) -> Dims | None:
        """The shape of ``value``, or None where not even its rank is known."""
        if value is None:
            return None
        known = self._dims.get(value)
        if known is None and (tensor := constant_tensor(value)) is not None:
            return tuple(tensor.shape.numpy())
        return known

    def dtype(self, value: ir.Value | None) -> ir.DataType | None:
        """The element type of ``value``, or None where it is not known."""
        if value is None:
            return None
        if value.const_value is not None:
            return value.const_value.dtype
        known = self._types.get(value)
        return ir.DataType(known.tensor_type.elem_type) if known is not None and known.HasField("tensor_type") else None

    def elements(self, value: ir.Value | None) -> tuple[Dims, int] | None:
        """The elements of a small integer tensor and its rank (0 or 1), or None where they are not known."""
        if value is None:
            return None
        if (known := self._elements.get(value)) is not None:
            return known
        tensor = constant_tensor(value)
        if tensor is None or tensor.dtype not in _INTEGERS or len(tensor.shape) > 1 or tensor.size > _MAX_TRACKED:
            return None
        return tuple(int(item) for item in tensor.numpy().reshape(-1)), len(tensor.shape)

    def _enter(self, value: ir.Value, sizes: Sequence[int] | None = None) -> None:
        """Takes over what an input declares, or the sizes that it was given."""
        if value.type is None or not isinstance(value.type, ir.TensorType):
            return
        self._types[value] = onnx.helper.make_tensor_type_proto(value.type.dtype.value, None)
        if sizes is not None:
            self._set_dims(value, tuple(sizes))
        elif value.shape is not None:
            self._set_dims(value, tuple(self._named(dim) for dim in value.shape))

    def _named(self, dim: int | ir.SymbolicDim | None) -> Dim:
        if isinstance(dim, int):
            return dim
        if dim is None or dim.value is None:
            return ir.SymbolicDim(f"unknown_{next(self._fresh)}")
        return dim

    def _set_dims(self, value: ir.Value, dims: Dims) -> None:
        self._dims[value] = dims
        kind = self._types.get(value)
        if kind is not None:
            element = kind.tensor_type.elem_type
            sizes = [dim if isinstance(dim, int) else str(dim) for dim in dims]
            self._types[value] = onnx.helper.make_tensor_type_proto(element, sizes)

    def _read(self, graph: ir.Graph) -> None:
        for node in graph:
            self._infer(node)
            rule = RULES.get(node.op_type) if node.domain == "" else None
            if rule is not None and len(node.outputs) == 1:
                found = rule(self, node)
                if found is not None and len(found[0]) <= _MAX_TRACKED:
                    self._elements[node.outputs[0]] = found
            if node.op_type in _SHAPED_BY_INPUT and node.domain == "":
                self._shape_from_elements(node)
            elif node.op_type in _BROADCASTING and node.domain == "":
                self._shape_from_operands(node)
            for attr in node.attributes.values():
                if attr.type == ir.AttributeType.GRAPH:
                    self._read(attr.as_graph())
                elif attr.type == ir.AttributeType.GRAPHS:
                    for body in attr.as_graphs():
                        self._read(body)

    def _infer(self, node: ir.Node) -> None:
        if node.domain == "com.microsoft":
            self._infer_contrib(node)
            return
        version = self._opsets.get(node.domain)
        if version is None or any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in _attrs(node)):
            return
        kinds: dict[str, onnx.TypeProto] = {}
        data: dict[str, onnx.TensorProto] = {}
        for value in node.inputs:
            if value is None:
                continue
            kind = self._type_of(value)
            if kind is None or value.name is None:
                return
            kinds[value.name] = kind
            shown = self._shown(value)
            if shown is not None:
                data[value.name] = onnx.numpy_helper.from_array(shown, value.name)
        try:
            schema = onnx.defs.get_schema(node.op_type, version, node.domain)
            imports = [onnx.helper.make_opsetid(node.domain, version)]
            proto = ir.serde.serialize_node(node)
            found = onnx.shape_inference.infer_node_outputs(schema, proto, kinds, data, opset_imports=imports)
        except Exception:  # onnx raises its own C++ exceptions, which have no common base; nothing is known then.
            return
        for value in node.outputs:
            kind = found.get(value.name or "")
            if kind is not None:
                self._learn(value, kind)

    def _learn(self, value: ir.Value, kind: onnx.TypeProto) -> None:
        if not kind.HasField("tensor_type"):
            return
        self._types[value] = onnx.helper.make_tensor_type_proto(kind.tensor_type.elem_type, None)
        if kind.tensor_type.HasField("shape"):
            dims = ir.serde.deserialize_type_proto_for_shape(kind)
            self._set_dims(value, tuple(self._named(dim) for dim in dims or ()))

    def _infer_contrib(self, node: ir.Node) -> None:
        """Operators of onnxruntime that passes put here: all of the type of their first real input, and its shape."""
        kinds = [self._type_of(value) for value in node.inputs if value is not None]
        real = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
        kind = next((kind for kind in kinds if kind is not None and kind.tensor_type.elem_type in real), None)
        if kind is None or not node.outputs:
            return
        self._types[node.outputs[0]] = onnx.helper.make_tensor_type_proto(kind.tensor_type.elem_type, None)
        dims = self.dims(node.inputs[0])
        if dims is not None and node.op_type in _KEEP_SHAPE:
            self._set_dims(node.outputs[0], dims)
        elif dims is not None and node.op_type in _LAST_FROM:
            width = self._width(node)
            if width is not None:
                self._set_dims(node.outputs[0], (*dims[:2], width))
        if node.op_type == "SkipLayerNormalization" and len(node.outputs) == 4 and dims is not None:
            self._types[node.outputs[3]] = self._types[node.outputs[0]]
            self._set_dims(node.outputs[3], dims)

    def _width(self, node: ir.Node) -> Dim | None:
        """The last dimension of what attention or an embedding gives."""
        dims = self.dims(node.inputs[_LAST_FROM[node.op_type]])
        if dims is None or node.op_type != "Attention":
            return None if dims is None else dims[-1]
        sizes = node.attributes.get("qkv_hidden_sizes")
        if sizes is not None:
            return int(sizes.as_ints()[2])
        return dims[-1] // 3

    def _type_of(self, value: ir.Value) -> onnx.TypeProto | None:
        if (known := self._types.get(value)) is not None:
            return known
        tensor = constant_tensor(value)
        return None if tensor is None else onnx.helper.make_tensor_type_proto(tensor.dtype.value, tensor.shape.numpy())

    def _shown(self, value: ir.Value) -> np.ndarray | None:
        tensor = constant_tensor(value)
        if tensor is not None:
            array = constant(value) if tensor.size <= _MAX_SHOWN else None
            return array if array is not None and array.dtype.kind in "if" else None
        known = self._elements.get(value)
        if known is None or not all(isinstance(item, int) for item in known[0]):
            return None
        return np.array(known[0], np.int64).reshape((-1,) if known[1] else ())

    def _shape_from_operands(self, node: ir.Node) -> None:
        """The shape that operands widen each other to, where sizes that must be equal have different names.

        A dimension that was cut to at most ``S`` meets one of size ``S`` only if it was not cut: else the model fails.
        """
        shapes = [self.dims(value) for value in node.inputs]
        known = [dims for dims in shapes if dims is not None]
        if len(known) < len(shapes) or not known:
            return
        rank = max(map(len, known))
        wide = [(1,) * (rank - len(dims)) + dims for dims in known]
        self._set_dims(node.outputs[0], tuple(self._named(self._met(column)) for column in zip(*wide, strict=True)))

    def _met(self, column: Sequence[Dim]) -> Dim | None:
        sizes = [dim for dim in column if dim != 1]
        if not sizes:
            return 1
        for dim in sizes:
            if isinstance(dim, int):
                return dim
        for dim in sizes:
            if all(same(other, dim) or self._cut_from(other, dim) for other in sizes):
                return dim
        return None

    def meets(self, dim: Dim, other: Dim) -> bool:
        """Whether ``dim`` is as large as the ``other`` that it is added to, in every run that does not fail for it."""
        return same(dim, other) or self._cut_from(dim, other)

    def _cut_from(self, cut: Dim, dim: Dim) -> bool:
        most = self._at_most.get(cut) if isinstance(cut, ir.SymbolicDim) else None
        return most is not None and same(most, dim)

    def _cut(self, node: ir.Node) -> None:
        """The shape of what a Slice cuts out, from ``start`` to ``end`` in steps of 1, along one axis each."""
        dims = self.dims(node.inputs[0])
        bounds = [self.elements(value) for value in node.inputs[1:]]
        if dims is None or not 2 <= len(bounds) <= 4 or any(bound is None for bound in bounds):
            return
        told = [bound[0] for bound in bounds if bound is not None]
        starts, ends = told[0], told[1]
        over = told[2] if len(told) > 2 else tuple(range(len(starts)))
        steps = told[3] if len(told) > 3 else (1,) * len(starts)
        sizes = list(dims)
        for start, end, axis, step in zip(starts, ends, over, steps, strict=True):
            if not isinstance(axis, int) or not -len(dims) <= axis < len(dims) or step != 1:
                return
            sizes[axis] = self._part(dims[axis], start, end)
        self._set_dims(node.outputs[0], tuple(sizes))

    def _append(self, node: ir.Node) -> None:
        """The shape of what a Concat joins: sizes add up along its axis, in names too."""
        shapes = [self.dims(value) for value in node.inputs]
        known = [dims for dims in shapes if dims is not None]
        axis = integer(node, "axis", 0)
        if len(known) < len(shapes) or not known or not -len(known[0]) <= axis < len(known[0]):
            return
        total = known[0][axis]
        for dims in known[1:]:
            total = total + dims[axis]
        sizes = list(known[0])
        sizes[axis] = total
        self._set_dims(node.outputs[0], tuple(sizes))

    def _part(self, dim: Dim, start: Dim, end: Dim) -> Dim:
        if isinstance(dim, int) and isinstance(start, int) and isinstance(end, int):
            return max(clamped(end, dim) - clamped(start, dim), 0)
        if start == 0 and (same(end, dim) or (isinstance(end, int) and end >= 2**31 - 1)):
            return dim
        size = self._named(None)
        if isinstance(dim, int) and dim > 1 and isinstance(size, ir.SymbolicDim):
            # Names stand for sizes, which are not negative; their difference is the length if nothing is cut off.
            length = end - start
            if isinstance(length, ir.SymbolicDim):
                self._at_most[size] = length.simplify()
        return size

    def _shape_from_elements(self, node: ir.Node) -> None:
        """The shape of a Reshape, Expand or ConstantOfShape whose target is known in names."""
        output = node.outputs[0]
        if node.op_type == "Slice":
            self._cut(node)
            return
        if node.op_type == "Concat":
            self._append(node)
            return
        if node.op_type == "ConstantOfShape":
            known = self.elements(node.inputs[0])
            if known is not None:
                self._set_dims(output, known[0])
            return
        source, known = self.dims(node.inputs[0]), self.elements(node.inputs[1])
        if known is None or source is None:
            return
        if node.op_type == "Reshape":
            dims = reshaped(source, known[0], allow_zero=integer(node, "allowzero", 0) != 0)
            if dims is not None:
                self._set_dims(output, tuple(self._named(dim) for dim in dims))
        elif node.op_type == "Expand" and len(known[0]) >= len(source):
            wide = (1,) * (len(known[0]) - len(source)) + source
            sizes = tuple(expanded(dim, target) for dim, target in zip(wide, known[0], strict=True))
            self._set_dims(output, tuple(self._named(dim) for dim in sizes))


def _attrs(node: ir.Node) -> Sequence[ir.Attr]:
    return tuple(node.attributes.values())


_SHAPED_BY_INPUT = frozenset({"Reshape", "Expand", "ConstantOfShape", "Slice", "Concat"})
_BROADCASTING = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Where", "And", "Or", "Equal", "Less", "Greater"})
_KEEP_SHAPE = frozenset({"Gelu", "BiasGelu", "FastGelu", "QuickGelu", "SkipLayerNormalization"})
# The input that the size of the last axis comes from.
_LAST_FROM = {"MultiHeadAttention": 2, "EmbedLayerNormalization": 2, "Attention": 1}
