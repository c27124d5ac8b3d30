"""A model for given sizes of its inputs alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import onnx

from openclaw.errors import ConfigInvalid
from openclaw.optimizer.model.contents import nested
from openclaw.optimizer.model.source import Source


def fixed(source: Source, shapes: Mapping[str, Sequence[int]]) -> Source:
    """The source with these sizes of inputs declared, and wherever else a dimension has the name of one of theirs.

    What a model computes of its inputs' sizes are constants then. One that cannot be optimized stays as it is.

    Raises:
        ConfigInvalid: there is no such input, or it has other dimensions; or one name would stand for two sizes.
    """
    if source.untouched is not None:
        return source
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in weights}
    names: dict[str, int] = {}
    for name, sizes in shapes.items():
        if name not in inputs:
            raise ConfigInvalid(f"shapes: there is no input {name!r}; the model takes {', '.join(inputs) or 'none'}")
        _fix(inputs[name], sizes, names)
    for dim in _dimensions(model.graph):
        if dim.dim_param in names:
            dim.dim_value = names[dim.dim_param]
    data = model.SerializeToString(deterministic=True)
    return replace(source, model=model, digest=hashlib.sha256(data).hexdigest(), bytes=len(data))


def _fix(value: onnx.ValueInfoProto, sizes: Sequence[int], names: dict[str, int]) -> None:
    """Writes sizes into an input, and into ``names`` what names they have."""
    dims = value.type.tensor_type.shape.dim
    if len(dims) != len(sizes):
        raise ConfigInvalid(f"shapes: {value.name!r} is given {list(sizes)}, and has {len(dims)} dimensions")
    for dim, size in zip(dims, sizes, strict=True):
        told = dim.dim_value if dim.HasField("dim_value") else names.get(dim.dim_param, size)
        if size < 1 or size != told:
            raise ConfigInvalid(f"shapes: {value.name!r} is given {list(sizes)}; {size} is to be {max(told, 1)} there")
        if dim.dim_param:
            names[dim.dim_param] = size
        dim.dim_value = size


def _dimensions(graph: onnx.GraphProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.HasField("tensor_type"):
            yield from value.type.tensor_type.shape.dim
    for node in graph.node:
        for inner in nested(node):
            yield from _dimensions(inner)
