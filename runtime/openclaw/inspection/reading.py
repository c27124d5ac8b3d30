"""Reads an ONNX file without its large weights, and holds shapes that a user gives against its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, inliner

from openclaw.errors import ConfigInvalid, ModelInvalid, ModelNotFound
from openclaw.inspection.operators import every_weight
from openclaw.inspection.tensors import Shape, shown


def read(path: Path) -> tuple[onnx.ModelProto, int]:
    """The model, and its bytes on disk with the files that hold its weights.

    Raises:
        ModelNotFound: there is no such file, or it cannot be read.
        ModelInvalid: it is not an ONNX model, was cut short, or lacks the files with its weights.
    """
    try:
        content = path.read_bytes()
    except IsADirectoryError as error:
        raise ModelInvalid(f"{path} is a folder; give the .onnx file in it") from error
    except OSError as error:
        raise ModelNotFound(f"there is no model at {path}: {error.strerror}") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise ModelInvalid(f"{path.name} ({len(content):,} bytes) is not an ONNX model, or was cut short") from error
    if not model.graph.node and not model.graph.output:
        raise ModelInvalid(f"{path.name} ({len(content):,} bytes) is not an ONNX model: it has no graph")
    return model, len(content) + sum(_beside(path, model).values())


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its functions put where they are called."""
    return inliner.inline_local_functions(model) if len(model.functions) else model


def check_shapes(graph: onnx.GraphProto, shapes: Mapping[str, Shape]) -> None:
    """Raises ConfigInvalid if `shapes` name an input that does not exist, or do not fit it."""
    inputs = {each.name: each for each in taken(graph)}
    for name, shape in shapes.items():
        if name not in inputs:
            raise ConfigInvalid(f"there is no input {name!r}; the model takes {', '.join(inputs) or 'none'}")
        kind = inputs[name].type.tensor_type
        dimensions = list(kind.shape.dim)
        fits = len(dimensions) == len(shape) and all(
            not each.HasField("dim_value") or each.dim_value == size
            for each, size in zip(dimensions, shape, strict=True)
        )
        if kind.HasField("shape") and not fits:
            raise ConfigInvalid(f"the shape {','.join(map(str, shape))} does not fit the input {said(inputs[name])}")


def taken(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller gives: those that are no weights."""
    weights = {each.name for each in graph.initializer}
    return [each for each in graph.input if each.name not in weights]


def said(value: onnx.ValueInfoProto) -> str:
    """An input or output as ``name: FP32[N,3,224,224]``."""
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type":
        return f"{value.name}: {(value.type.WhichOneof('value') or 'unknown').removesuffix('_type')}"
    if not kind.HasField("shape"):
        return f"{value.name}: {shown(kind.elem_type)}[...]"
    sizes = (str(each.dim_value) if each.HasField("dim_value") else each.dim_param or "?" for each in kind.shape.dim)
    return f"{value.name}: {shown(kind.elem_type)}[{','.join(sizes)}]"


def _beside(path: Path, model: onnx.ModelProto) -> dict[str, int]:
    """The files that hold weights, and their sizes."""
    files: dict[str, int] = {}
    for weight in every_weight(model.graph):
        if weight.data_location != TensorProto.EXTERNAL:
            continue
        location = next((each.value for each in weight.external_data if each.key == "location"), "")
        if location not in files:
            file = path.parent / location
            if not location or not file.is_file():
                raise ModelInvalid(f"{path.name} has weights in {location!r}, which is not beside it")
            files[location] = file.stat().st_size
    return files
