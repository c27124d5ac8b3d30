"""The library: load and run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import openclaw
from openclaw.devices.cpu import Grant
from openclaw.errors import InferenceFailed, InvalidRequest, ModelInvalid, ModelNotFound, ModelWarmupFailed, OutOfMemory
from openclaw.execute.session import Model
from openclaw.serving.warmup import warm_up


def test_a_model_answers_as_onnxruntime_does(models: Any) -> None:
    images = np.random.default_rng(1).random((5, 64), dtype=np.float32)
    model = openclaw.load(models.digits())
    expected = onnxruntime.InferenceSession(models.digits()).run(None, {"image": images})[0]
    assert model.name == "digits"
    np.testing.assert_array_equal(model.run({"image": images})["scores"], expected)


def test_lists_take_the_models_datatype(models: Any) -> None:
    model = openclaw.load(str(models.pair()))
    got = model.run({"a": [5, 6], "b": [1, 2]})
    assert {name: array.tolist() for name, array in got.items()} == {"sum": [6, 8], "difference": [4, 4]}
    assert openclaw.load(models.digits()).run({"image": [[0.5] * 64]})["scores"].dtype == np.float32


def test_outputs_can_be_chosen(models: Any) -> None:
    got = openclaw.load(models.pair()).run({"a": [1], "b": [1]}, outputs=["difference"])
    assert list(got) == ["difference"]


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "input 'a' is missing; the model takes a: INT64[-1], b: INT64[-1]"),
        ({"c": [1]}, "there is no input 'c'"),
        ({"a": np.zeros(1, np.float32), "b": [1]}, "input 'a' is float32; the model takes int64 (INT64)"),
        ({"a": [1.5], "b": [1]}, "input 'a' is float64; the model takes int64 (INT64)"),
        ({"a": [2**70], "b": [1]}, "input 'a' is object"),
        ({"a": [[1], [1, 2]], "b": [1]}, "does not fit INT64"),
        ({"a": [[1]], "b": [1]}, "input 'a' has shape [1, 1]; the model takes [-1] (-1: any size)"),
    ],
)
def test_wrong_inputs_are_refused(models: Any, inputs: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        openclaw.load(models.pair()).run(inputs)
    assert says in str(refusal.value)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_inputs_that_do_not_suit_each_other_are_refused_by_a_model_that_has_worked(
    models: Any, tmp_path: Path, engine: str
) -> None:
    named = onnx.load(models.pair())
    helper.set_model_props(named, {"openclaw.engine": engine})
    onnx.save(named, tmp_path / "pair.onnx")
    model = openclaw.load(tmp_path / "pair.onnx")
    assert not model.worked
    for size in (1, 2, 3):
        good = np.arange(size)
        assert model.run({"a": good, "b": good})["sum"].tolist() == (2 * good).tolist()
        with pytest.raises(InvalidRequest, match=r"the model takes no such inputs: "):
            model.run({"a": np.arange(2), "b": np.arange(3)})
        # Also of the same shapes as the last that was right.
        assert model.run({"a": good, "b": good})["sum"].tolist() == (2 * good).tolist()


def test_a_model_that_never_worked_is_not_said_to_refuse_its_inputs(models: Any) -> None:
    with pytest.raises(InferenceFailed, match="the model failed: "):
        openclaw.load(models.pair()).run({"a": [1, 2], "b": [1, 2, 3]})


def test_an_answer_that_there_is_no_memory_for_is_no_fault_of_the_inputs(tmp_path: Path) -> None:
    spec = helper.make_tensor_value_info
    nodes = [helper.make_node("ConstantOfShape", ["n"], ["y"])]
    graph = helper.make_graph(nodes, "g", [spec("n", TensorProto.INT64, [1])], [spec("y", TensorProto.FLOAT, ["N"])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    model = openclaw.load(tmp_path / "m.onnx")
    assert model.run({"n": [3]})["y"].tolist() == [0, 0, 0]
    with pytest.raises(InferenceFailed, match="out of memory while running the model"):
        model.run({"n": [2**50]})  # more than there are addresses
    assert model.run({"n": [3]})["y"].tolist() == [0, 0, 0]


def test_an_unknown_output_is_refused(models: Any) -> None:
    with pytest.raises(InvalidRequest, match="there is no output 'product'; the model gives sum"):
        openclaw.load(models.pair()).run({"a": [1], "b": [1]}, outputs=["product"])


async def test_load_works_inside_a_running_event_loop(models: Any) -> None:
    assert asyncio.get_running_loop().is_running()
    assert openclaw.load(models.digits(), name="x", threads=1).threads == 1


@pytest.mark.parametrize("cut", [0, 10, 1000, -1])
def test_a_truncated_model_is_invalid(models: Any, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(models.digits().read_bytes()[:cut])
    with pytest.raises(ModelInvalid, match=r"cut\.onnx \([\d,]+ bytes\) is not an ONNX model, or was cut short"):
        openclaw.load(path)


def test_a_page_instead_of_a_model_is_invalid(tmp_path: Path) -> None:
    path = tmp_path / "page.onnx"
    path.write_text("<html>please log in</html>")
    with pytest.raises(ModelInvalid, match="is not an ONNX model"):
        openclaw.load(path)


def test_an_operator_that_does_not_exist_is_named(tmp_path: Path) -> None:
    spec = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Frobnicate", ["x"], ["y"])],
        "g",
        [spec("x", TensorProto.FLOAT, [1])],
        [spec("y", TensorProto.FLOAT, [1])],
    )
    path = tmp_path / "unknown.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(
        ModelInvalid, match=f"cannot be executed by onnxruntime {onnxruntime.__version__}: .*Frobnicate"
    ):
        openclaw.load(path)


def test_an_output_that_is_no_tensor_is_refused_with_advice(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("SequenceConstruct", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "sequence.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(ModelInvalid, match=r"output 'y' is seq\(tensor\(float\)\), which cannot be served; export"):
        openclaw.load(path)


def test_a_missing_model_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="there is no file"):
        openclaw.load(tmp_path / "none.onnx")


def test_a_model_larger_than_the_memory_granted_is_refused_before_it_is_loaded(models: Any) -> None:
    with pytest.raises(OutOfMemory, match=r"granted 100 bytes of memory; raise the memory limit"):
        Model.from_file(models.digits(), grant=Grant(cores=1, memory_bytes=100))


def test_a_warm_up_that_cannot_work_says_what_to_set(models: Any) -> None:
    model = openclaw.load(models.needs_two_rows())
    with pytest.raises(ModelWarmupFailed, match=r"zeros as x\[1\] failed: .*set model\.warmup\.requests to 0"):
        warm_up(model, 1)
    warm_up(model, 0)


@pytest.mark.parametrize("datatype", [TensorProto.STRING, TensorProto.FLOAT16, TensorProto.BOOL])
def test_a_warm_up_input_is_made_for_every_kind_of_datatype(models: Any, datatype: int) -> None:
    warm_up(openclaw.load(models.identity(datatype)), 2)


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        openclaw.lode  # noqa: B018 - the access is what is tested
