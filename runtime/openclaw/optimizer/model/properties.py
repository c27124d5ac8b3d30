"""Properties of a model (``metadata_props``), which say how it is best served."""

from __future__ import annotations

from collections.abc import Container, Mapping

import onnx


def with_properties(
    model: onnx.ModelProto, properties: Mapping[str, str], *, without: Container[str] = ()
) -> onnx.ModelProto:
    """A copy with other properties.

    Args:
        model: stays as it is.
        properties: to add.
        without: keys that go.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    left = [each for each in model.metadata_props if each.key not in without and each.key not in properties]
    del copy.metadata_props[:]
    added = [onnx.StringStringEntryProto(key=key, value=value) for key, value in properties.items()]
    copy.metadata_props.extend([*left, *added])
    return copy
