"""The operator set that a model is written in, and the same model in a later one."""

from __future__ import annotations

from typing import TypeVar

import onnx
from onnx import helper, version_converter

from openclaw.errors import NotApplicable

Message = TypeVar("Message", onnx.NodeProto, onnx.TensorProto)

SMALL = 1024
"""Bytes of a weight that the converter gets to see: axes, shapes and scales, but no matrices."""
IR_OF_17 = 8
"""The version of the file format that came with operator set 17."""


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the default domain; 0 where the model does not say."""
    return max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)


def raised(model: onnx.ModelProto, target: int) -> onnx.ModelProto:
    """A copy in operator set ``target``, with the same inputs, outputs and weights.

    ``onnx.version_converter`` makes it, which has no adapter for some operators. It goes through all that it is given
    several times, and ends at 2 GiB, so weights stay behind.

    Raises:
        NotApplicable: it cannot be converted; or what the converter made of it breaks ONNX's rules.
    """
    if model.functions or model.graph.sparse_initializer:
        raise NotApplicable("functions and sparse weights are lost where a model is converted to another operator set")
    bare = _without_weights(model)
    try:
        form = version_converter.convert_version(bare, target)
        onnx.checker.check_model(form)
    except Exception as error:
        # The converter raises RuntimeError, ValidationError and what its C++ part throws.
        text = " ".join(str(error).split())[:400]
        raise NotApplicable(
            f"the model is of operator set {opset_of(model)} and cannot be converted to {target}: {text}"
        ) from error
    return _with_weights(form, model)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with large weights as inputs."""
    bare = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy(bare, field.name, value)
    graph = model.graph
    for field, value in graph.ListFields():
        if field.name != "initializer":
            _copy(bare.graph, field.name, value)
    inputs = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if tensor.ByteSize() <= SMALL:
            bare.graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            bare.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return bare


def _copy(into: onnx.ModelProto | onnx.GraphProto, name: str, value: object) -> None:
    field = getattr(into, name)
    if hasattr(field, "MergeFrom"):
        field.MergeFrom(value)
    else:
        setattr(into, name, value)


def _with_weights(form: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """Puts back what stayed behind, in place, and what callers see of the model as they know it."""
    known = {tensor.name for tensor in model.graph.initializer}
    known |= {output for node in model.graph.node for output in node.output}
    added = [_copied(tensor) for tensor in form.graph.initializer if tensor.name not in known]
    nodes = []
    for node in form.graph.node:
        # Axes that became inputs: only of weights it is seen that they are the same.
        if node.op_type == "Constant" and node.attribute[0].name == "value" and node.output[0] not in known:
            added.append(_copied(node.attribute[0].t, name=node.output[0]))
        else:
            nodes.append(_copied(node))
    for name, values in (
        ("node", nodes),
        ("initializer", [*model.graph.initializer, *added]),
        ("input", model.graph.input),
        ("output", model.graph.output),
    ):
        form.graph.ClearField(name)
        getattr(form.graph, name).extend(values)
    form.ir_version = max(form.ir_version, IR_OF_17)
    return form


def _copied(message: Message, **fields: object) -> Message:
    """A copy that outlives the list which the message is in."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy
