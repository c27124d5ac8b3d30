"""What a model needs before it can be quantized: an operator set with per-channel scales, and a name for every node."""

from __future__ import annotations

import onnx
from onnx import version_converter

from openclaw.errors import NotApplicable
from openclaw.optimizer.precision.quiet import quietly

PER_CHANNEL_SINCE = 13
TARGET = 17


def prepared(model: onnx.ModelProto, *, since: int = PER_CHANNEL_SINCE) -> onnx.ModelProto:
    """A copy in operator set ``since`` or later, whose nodes all have names of their own.

    Raises:
        NotApplicable: the model is of an older operator set, and cannot be converted.
    """
    version = opset_of(model)
    if version < since:
        try:
            with quietly():
                copy = version_converter.convert_version(model, TARGET)
        except Exception as error:
            # The converter raises RuntimeError, ValidationError and what its C++ part throws.
            raise NotApplicable(
                f"it needs operator set {since}; the model is of {version} and cannot be converted: {error}"
            ) from error
    else:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
    _name(copy.graph)
    return copy


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the default domain; 0 where the model does not say."""
    return max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)


def _name(graph: onnx.GraphProto) -> None:
    seen: set[str] = set()
    for node in graph.node:
        wish = node.name or next(filter(None, node.output), node.op_type)
        name, number = wish, 1
        while name in seen:
            name, number = f"{wish}_{number}", number + 1
        seen.add(name)
        node.name = name
