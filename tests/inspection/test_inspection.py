"""`openclaw inspect`: what it says is held against hand-made models, against runs, and against onnxruntime."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from benchmarks.graph.families import FAMILIES, Family
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from openclaw.inspection.anatomy import described, inspect
from openclaw.inspection.command import command
from openclaw.inspection.picture import drawn
from openclaw.inspection.shaping import shaped


def run(*words: object) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])


def weight(name: str, *shape: int, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, dtype), name)


def a_model(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], **more: Any) -> onnx.ModelProto:
    """A model of `x`: FLOAT[N,3,8,8] to `y`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "test", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **more)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A convolution of 5 channels, its activation, and a linear layer."""
    nodes = [
        helper.make_node("Conv", ["x", "k", "b"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"]),
    ]
    path = tmp_path / "small.onnx"
    onnx.save(a_model(nodes, [weight("k", 5, 3, 3, 3), weight("b", 5), weight("w", 320, 7)]), path)
    return path


def test_nodes_weights_and_work_are_counted(small: Path) -> None:
    told = inspect(small)
    assert told.operators == {"Conv": 1, "Flatten": 1, "Gemm": 1, "Relu": 1}
    assert told.parameters == 135 + 5 + 2240
    assert told.weights == {"FP32": 4 * told.parameters}
    assert told.size == small.stat().st_size
    assert told.work == {"FP32": 8 * 8 * 5 * 27 + 320 * 7}
    assert told.assumed == {"N": 1}


def test_activations_are_those_that_live_at_once_and_a_flatten_takes_none(small: Path) -> None:
    told = inspect(small)
    one = 5 * 8 * 8 * 4
    # Convolution and ReLU side by side; what Flatten makes is what ReLU made.
    assert told.activations == 2 * one
    assert told.activations_sum == 2 * one + 7 * 4
    assert [moment.live for moment in told.moments] == [one, 2 * one, one, one + 7 * 4]


def test_a_shape_scales_work_and_activations(small: Path) -> None:
    one, four = inspect(small), inspect(small, {"x": (4, 3, 8, 8)})
    assert one.work_sum is not None
    assert one.activations is not None
    assert (four.work_sum, four.activations) == (4 * one.work_sum, 4 * one.activations)


def test_weights_beside_the_file_count_for_its_size_and_are_not_read(small: Path) -> None:
    inside = inspect(small)
    outside = small.with_name("outside.onnx")
    onnx.save(onnx.load(small), outside, save_as_external_data=True, location="weights.bin", size_threshold=0)
    told = inspect(outside)
    assert told.parameters == inside.parameters
    assert told.work == inside.work
    assert told.size == outside.stat().st_size + (small.parent / "weights.bin").stat().st_size


def test_nodes_and_weights_inside_branches_are_counted_and_what_they_read_lives_on() -> None:
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["k"], value=weight("", 3)), helper.make_node("Mul", ["a", "a"], ["m"])],
        "branch", [], [helper.make_tensor_value_info("m", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Relu", ["x"], ["other"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
    ]
    told = described(a_model(nodes, [weight("c", dtype=np.bool_)]), name="m", size=1)
    assert told.operators == {"Constant": 2, "Mul": 2, "Relu": 2, "If": 1}
    assert told.parameters == 6
    assert told.unknown == 1
    assert told.activations is None
    # `a`, which only the branches read, lives beside `other`.
    assert told.moments[1].live == 2 * 3 * 8 * 8 * 4


def test_integers_of_four_bits_take_half_a_byte() -> None:
    packed = helper.make_tensor("w", TensorProto.INT4, [5], b"\x11\x11\x01", raw=True)
    told = described(a_model([helper.make_node("Relu", ["x"], ["y"])], [packed]), name="m", size=1)
    assert told.weights == {"INT4": 3}
    assert told.parameters == 5


def test_a_convolution_between_quantization_counts_as_int8() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["k", "s", "zk"], ["dk"]),
        helper.make_node("Conv", ["d", "dk"], ["y"]),
    ]
    weights = [
        weight("s"),
        weight("z", dtype=np.uint8),
        weight("zk", dtype=np.int8),
        weight("k", 2, 3, 1, 1, dtype=np.int8),
    ]
    told = described(a_model(nodes, weights), name="m", size=1)
    assert told.work == {"INT8": 8 * 8 * 2 * 3}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("optimized", [False, True], ids=["exported", "optimized by onnxruntime"])
def test_shapes_and_values_are_those_of_a_run(family: Family, optimized: bool, tmp_path: Path) -> None:
    model, feed = family.build(small=True), family.feeds(2, small=True)[0]
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        model = onnx.load(tmp_path / "optimized.onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
    # What onnxruntime left there would tell the answer.
    del model.graph.value_info[:]
    known = shaped(model, {name: array.shape for name, array in feed.items()})
    made = [name for node in model.graph.node for name in node.output if name]
    given = {each.name for each in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made if name not in given)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for output, array in zip(session.get_outputs(), session.run(None, dict(feed)), strict=True):
        tensor = known.tensors[output.name]
        assert (tensor.shape, tensor.size) == (array.shape, array.nbytes), output.name
        if output.name in known.values:
            np.testing.assert_allclose(known.values[output.name], array, rtol=1e-6)


def test_a_table_shows_both_models_and_the_change(small: Path) -> None:
    fused = small.with_name("fused.onnx")
    onnx.save(a_model([helper.make_node("Relu", ["x"], ["y"])], []), fused)
    told = run(small, fused)
    assert told.exit_code == 0, told.output
    assert told.output.startswith("takes x: FP32[N,3,8,8]\n")
    rows = {line.split("  ")[0].strip(): line.split() for line in told.output.splitlines() if "  " in line.strip()}
    assert rows["nodes"] == ["nodes", "4", "1", "-75%"]
    assert "-100%" in next(line for line in told.output.splitlines() if "Conv" in line)
    assert "N = 1" in told.output


def test_json_has_every_node_in_order(small: Path) -> None:
    told = json.loads(run(small, "--json", "--shape", "x=2,3,8,8").output)
    assert [each["operator"] for each in told["moments"]] == ["Conv", "Relu", "Flatten", "Gemm"]
    assert told["assumed"] == {"N": 2}
    both = json.loads(run(small, small, "--json").output)
    assert both["before"] == both["after"]


def test_the_picture_has_a_bar_for_every_node_and_names_the_peak(small: Path, tmp_path: Path) -> None:
    told = run(small, small, "--svg", tmp_path / "memory.svg")
    assert told.exit_code == 0, told.output
    text = (tmp_path / "memory.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    bars = [each for each in root.iter("{http://www.w3.org/2000/svg}rect") if len(each)]
    assert len(bars) == 2 * 4
    heights = [float(each.get("height", "0")) for each in bars[:4]]
    assert heights[1] == max(heights)
    assert "2.5 KiB: Relu FP32[1,5,8,8]" in text


def test_a_long_graph_is_drawn_with_neighbours_in_one_bar_and_keeps_its_peak() -> None:
    names = ["x", *(f"t{number}" for number in range(1999)), "y"]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)]
    text = drawn([described(a_model(nodes, []), name="long", size=1)])
    root = ElementTree.fromstring(text)
    assert 300 <= sum(len(each) > 0 for each in root.iter("{http://www.w3.org/2000/svg}rect")) <= 600
    assert "1.5 KiB: Relu" in text


def test_a_graph_without_nodes_is_drawn_and_told() -> None:
    told = described(a_model([], []), name="<empty>", size=1)
    assert told.nodes == 0
    assert "&lt;empty&gt;" in drawn([told])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no model at"),
        (b"no model at all", "is not an ONNX model, or was cut short"),
        (b"", "it has no graph"),
    ],
)
def test_a_bad_file_is_told_in_a_sentence(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    told = run(path)
    assert told.exit_code == 78
    assert said in told.output
    assert len(told.output.splitlines()) == 1


def test_a_truncated_model_is_told(small: Path) -> None:
    small.write_bytes(small.read_bytes()[:-100])
    assert "was cut short" in run(small).output


def test_a_folder_is_told(tmp_path: Path) -> None:
    assert "is a folder" in run(tmp_path).output


def test_weights_that_are_not_beside_the_file_are_told(small: Path) -> None:
    outside = small.with_name("outside.onnx")
    onnx.save(onnx.load(small), outside, save_as_external_data=True, location="weights.bin", size_threshold=0)
    small.with_name("weights.bin").unlink()
    told = run(outside)
    assert told.exit_code == 78
    assert "'weights.bin', which is not beside it" in told.output


@pytest.mark.parametrize(
    ("shape", "code", "said"),
    [
        ("x", 2, "write for example image=1,3,224,224"),
        ("x=1,a", 2, "write for example image=1,3,224,224"),
        ("z=1", 78, "there is no input 'z'; the model takes x"),
        ("x=1,3,9,8", 78, "does not fit the input x: FP32[N,3,8,8]"),
        ("x=1,3", 78, "does not fit the input x: FP32[N,3,8,8]"),
    ],
)
def test_a_wrong_shape_is_told(shape: str, code: int, said: str, small: Path) -> None:
    told = run(small, "--shape", shape)
    assert told.exit_code == code
    assert said in told.output


def test_a_picture_that_cannot_be_written_is_told(small: Path, tmp_path: Path) -> None:
    told = run(small, "--svg", tmp_path / "no" / "where.svg")
    assert told.exit_code == 78
    assert "cannot be written: No such file" in told.output
