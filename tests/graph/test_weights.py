"""Where a model file has its weights, and the same model with the large ones outside of it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from openclaw.graph.weights import LARGE, read_weights, write_outside
from openclaw.graph.wire import MalformedError, fields

SIZES = st.sampled_from([0, 1, LARGE // 4 - 1, LARGE // 4, LARGE // 4 + 1, 3 * LARGE // 4])
KINDS = st.sampled_from(["raw", "float_data", "double_data", "int64_data"])


def tensor(name: str, elements: int, kind: str) -> TensorProto:
    values = np.arange(elements)
    match kind:
        case "raw":
            return numpy_helper.from_array(values.astype(np.float32), name)
        case "float_data":
            return helper.make_tensor(name, TensorProto.FLOAT, [elements], values.astype(np.float32))
        case "double_data":
            return helper.make_tensor(name, TensorProto.DOUBLE, [elements], values.astype(np.float64))
        case _:
            return helper.make_tensor(name, TensorProto.INT64, [elements], values)


def model_with(tensors: list[TensorProto]) -> onnx.ModelProto:
    """Gives each tensor as an output."""
    nodes = [helper.make_node("Identity", [each.name], [f"y{each.name}"]) for each in tensors]
    outputs = [helper.make_tensor_value_info(f"y{each.name}", each.data_type, list(each.dims)) for each in tensors]
    graph = helper.make_graph(nodes, "weights", [], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"openclaw.engine": "onnxruntime"})
    return model


def outside(path: Path) -> Path:
    """The model with its large weights in files beside it."""
    weights = read_weights(path)
    data = path.read_bytes()
    places = []
    for number, weight in enumerate(weights.inside):
        (path.parent / f"w{number}").write_bytes(data[weight.at : weight.at + weight.size])
        places.append(f"w{number}")
    to = path.with_name("outside.onnx")
    with to.open("wb") as file:
        write_outside(path, weights, places=places, to=file)
    return to


@given(st.lists(st.tuples(SIZES, KINDS), max_size=6))
def test_the_model_with_its_weights_outside_is_the_same_model(sizes: list[tuple[int, str]]) -> None:
    tensors = [tensor(f"t{number}", elements, kind) for number, (elements, kind) in enumerate(sizes)]
    model = model_with(tensors)
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        onnx.save(model, path)
        written = outside(path)
        raw = onnx.load(written, load_external_data=False)
        loaded = onnx.load(written)
    assert [entry.key for entry in raw.metadata_props] == ["openclaw.engine"]
    for before, between, after in zip(tensors, raw.graph.initializer, loaded.graph.initializer, strict=True):
        values = numpy_helper.to_array(before)
        np.testing.assert_array_equal(numpy_helper.to_array(after), values)
        is_outside = between.data_location == TensorProto.EXTERNAL
        assert is_outside == (values.nbytes >= LARGE and before.data_type != TensorProto.INT64)
    if tensors:
        for mine, theirs in zip(
            ReferenceEvaluator(loaded).run(None, {}), ReferenceEvaluator(model).run(None, {}), strict=True
        ):
            np.testing.assert_array_equal(mine, theirs)


def test_what_stays_inside_and_what_goes_outside_is_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model_with([tensor("a", LARGE, "raw"), tensor("b", 3, "raw")]), path)
    weights = read_weights(path)
    assert (weights.large, weights.outside) == (4 * LARGE, 0)
    assert weights.small + weights.large == path.stat().st_size
    assert outside(path).stat().st_size < 1000


def test_weights_that_are_outside_already_are_counted_and_stay(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model_with([tensor("a", LARGE, "raw")]), path, save_as_external_data=True, location="data")
    weights = read_weights(path)
    assert (weights.inside, weights.outside) == ((), 4 * LARGE)


def test_a_model_without_a_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.ModelProto(ir_version=8).SerializeToString())
    with pytest.raises(MalformedError, match="0 graphs"):
        read_weights(path)


@given(st.binary(max_size=300))
def test_what_is_no_model_is_refused_or_has_no_weights(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(data)
        with suppress(MalformedError):
            assert read_weights(path).inside == ()


@given(st.data())
def test_a_model_that_was_cut_short_is_refused_or_still_whole(data: st.DataObject) -> None:
    whole = model_with([tensor("a", LARGE, "raw")]).SerializeToString()
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        try:
            weights = read_weights(path)
        except MalformedError:
            return
        assert all(weight.end <= path.stat().st_size for weight in weights.inside)


def test_fields_are_told_by_their_places(tmp_path: Path) -> None:
    entry = onnx.StringStringEntryProto(key="k", value="vv").SerializeToString()
    path = tmp_path / "entry"
    path.write_bytes(entry)
    with path.open("rb") as file:
        assert [(f.number, f.kind, f.start, f.at, f.end) for f in fields(file, len(entry))] == [
            (1, 2, 0, 2, 3),
            (2, 2, 3, 5, 7),
        ]
