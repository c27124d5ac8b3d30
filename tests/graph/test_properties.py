"""A model file's properties, read past its graph."""

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from openclaw.graph.properties import read_properties


def model_with(properties: dict[str, str], weight: bytes = b"") -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    tensor = helper.make_tensor("w", TensorProto.UINT8, [len(weight)], weight, raw=True)
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "small", [x], [x], [tensor])
    model = helper.make_model(graph)
    helper.set_model_props(model, properties)
    return model.SerializeToString()


def read(data: bytes) -> dict[str, str]:
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(data)
        return read_properties(path)


@given(st.dictionaries(st.text(), st.text(), max_size=5), st.binary(max_size=300))
def test_properties_are_those_that_onnx_wrote(properties: dict[str, str], weight: bytes) -> None:
    assert read(model_with(properties, weight)) == properties


@given(st.binary(max_size=200))
def test_what_is_no_model_has_properties_as_far_as_they_can_be_read(data: bytes) -> None:
    assert isinstance(read(data), dict)


@given(st.data())
def test_a_model_that_was_cut_short_has_no_other_properties(data: st.DataObject) -> None:
    whole = model_with({"one": "1", "two": "2"}, b"weights")
    found = read(whole[: data.draw(st.integers(0, len(whole)))])
    assert found.items() <= {"one": "1", "two": "2"}.items()


def test_a_property_of_megabytes_is_passed_over() -> None:
    assert read(model_with({"large": "x" * 2_000_000, "small": "y"})) == {"small": "y"}


def test_a_file_that_is_not_there_is_said() -> None:
    with pytest.raises(FileNotFoundError):
        read_properties(Path("/nowhere/model.onnx"))


def test_a_model_without_properties_has_none() -> None:
    assert read(onnx.ModelProto(ir_version=8).SerializeToString()) == {}
