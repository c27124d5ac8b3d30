"""`openclaw inspect --memory`: the plan of real networks, as a table, JSON and a picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from benchmarks.graph.families import FAMILIES, Family
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from openclaw.inspection.command import command
from openclaw.inspection.memory import Plans, plan_of

PLANNED = ("resnet50", "inception", "unet", "bert", "mobilenet")
SVG = "{http://www.w3.org/2000/svg}"


def run(*words: object) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def a_model(
    nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], *, sizes: list[Any] | None
) -> onnx.ModelProto:
    """A model of `x`: FLOAT of these sizes to `y`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "test", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A convolution of 5 channels, its activation, and a linear layer."""
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], name="conv", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"]),
    ]
    path = tmp_path / "small.onnx"
    onnx.save(a_model(nodes, [weight("k", 5, 3, 3, 3), weight("w", 320, 7)], sizes=["N", 3, 8, 8]), path)
    return path


def test_json_has_the_place_of_every_tensor(small: Path) -> None:
    told = json.loads(run(small, "--memory", "--json").output)
    one = 5 * 8 * 8 * 4
    # The activation is written over the convolution's result, and flattening it moves nothing.
    assert told["tensors"] == [
        {"name": "c", "bytes": one, "first": 0, "last": 3, "offset": 0, "shares": ["r", "f"]},
        {"name": "y", "bytes": 28, "first": 3, "last": 3, "offset": one, "shares": []},
    ]
    assert told["lower_bound_bytes"] == told["arena_bytes"] == one + 64
    assert told["fragmentation"] == 0
    assert told["nodes"] == ["conv", "r", "f", "y"]
    assert told["assumed"] == {"N": 1}


def test_a_shape_scales_the_plan(small: Path) -> None:
    one = json.loads(run(small, "--memory", "--json").output)
    four = json.loads(run(small, "--memory", "--json", "--shape", "x=4,3,8,8").output)
    assert four["tensors"][0]["bytes"] == 4 * one["tensors"][0]["bytes"]
    assert four["assumed"] == {"N": 4}


def test_the_table_has_the_figures_and_the_largest_tensors(small: Path) -> None:
    told = run(small, "--memory")
    assert told.exit_code == 0, told.output
    rows = {line.split("  ")[0].strip(): line.split() for line in told.output.splitlines() if "  " in line.strip()}
    assert rows["lower bound"][2:] == ["1.3", "KiB"]
    assert rows["arena"][1:] == ["1.3", "KiB"]
    assert rows["fragmentation"][1] == "0.00%"
    assert rows["c and 2 more"][4:] == ["1.2", "KiB", "1", "4", "0"]
    assert told.output.rstrip().endswith("The plan is for N = 1; --shape says otherwise.")


def test_two_models_stand_side_by_side(small: Path) -> None:
    both = json.loads(run(small, small, "--memory", "--json").output)
    assert both["before"] == both["after"]
    assert "The largest tensors of small.onnx:" in run(small, small, "--memory").output


def test_the_picture_has_a_rectangle_for_every_buffer_and_none_covers_another(tmp_path: Path) -> None:
    unet = next(family for family in FAMILIES if family.name == "unet")
    path = tmp_path / "unet.onnx"
    onnx.save(unet.build(small=True), path)
    told = run(path, "--memory", "--json", "--svg", tmp_path / "plan.svg")
    root = ElementTree.fromstring((tmp_path / "plan.svg").read_text(encoding="utf-8"))
    blocks = [each for each in root.iter(f"{SVG}rect") if each.get("class", "").startswith("block")]
    assert len(blocks) == len(json.loads(told.output)["tensors"])
    sides = [tuple(float(each.get(side, "0")) for side in ("x", "y", "width", "height")) for each in blocks]
    for (x, y, w, h), (u, v, p, q) in combinations(sides, 2):
        covered = min(x + w, u + p) - max(x, u) > 0.6 and min(y + h, v + q) - max(y, v) > 0.6
        assert not covered
    texts = " ".join(each.text or "" for each in root.iter(f"{SVG}text"))
    assert "lower bound" in texts
    assert "convolution" in texts
    assert any("Conv " in (each.findtext(f"{SVG}title") or "") for each in blocks)


@pytest.mark.parametrize("family", [each for each in FAMILIES if each.name in PLANNED], ids=lambda each: each.name)
def test_networks_lose_less_than_three_in_a_hundred(family: Family) -> None:
    model = family.build()
    for batch in (1, 16):
        shapes = {name: array.shape for name, array in family.feeds(batch)[0].items()}
        found = plan_of(model, name=family.name, shapes=shapes).plan
        assert found.fragmentation < 0.03
        assert found.arena_bytes < found.total_bytes / 2


@pytest.mark.parametrize("family", FAMILIES, ids=lambda each: each.name)
def test_every_family_has_a_plan_without_overlaps(family: Family) -> None:
    feed = family.feeds(2, small=True)[0]
    shapes = {name: array.shape for name, array in feed.items()}
    found = plan_of(family.build(small=True), name=family.name, shapes=shapes)
    placed = list(zip(found.plan.buffers, found.plan.offsets, strict=True))
    for (one, a), (other, b) in combinations(placed, 2):
        together = one.first <= other.last and other.first <= one.last
        assert not (together and a < b + other.size and b < a + one.size)
    assert found.plan.fragmentation < 0.03


def test_a_tensor_whose_size_only_a_run_can_tell_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nonzero.onnx"
    onnx.save(a_model([helper.make_node("NonZero", ["x"], ["y"], name="found")], [], sizes=[3]), path)
    told = run(path, "--memory")
    assert told.exit_code == 78
    assert "the size of 'y', made by NonZero 'found', is not known: only a run can tell it" in told.output


def test_an_input_whose_size_is_not_said_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "open.onnx"
    onnx.save(a_model([helper.make_node("Relu", ["x"], ["y"])], [], sizes=None), path)
    told = run(path, "--memory")
    assert told.exit_code == 78
    assert "does not say how large its input 'x' is; give it, for example as --shape x=1,3,224,224" in told.output
    given = json.loads(run(path, "--memory", "--json", "--shape", "x=2,5").output)
    assert given["tensors"] == [{"name": "y", "bytes": 40, "first": 0, "last": 0, "offset": 0, "shares": []}]


def test_sizes_that_do_not_fit_together_are_told_with_what_to_give(tmp_path: Path) -> None:
    path = tmp_path / "product.onnx"
    nodes = [helper.make_node("MatMul", ["w", "x"], ["p"], name="first"), helper.make_node("Relu", ["p"], ["y"])]
    onnx.save(a_model(nodes, [weight("w", 2, 4)], sizes=["N", 3]), path)
    told = run(path, "--memory")
    assert told.exit_code == 78
    assert "'p', made by MatMul 'first', is not known, nor that of 1 others" in told.output
    assert "it was tried with N = 1; give other sizes with --shape x=SIZES" in told.output
    assert run(path, "--memory", "--shape", "x=4,3").exit_code == 0


def test_constants_take_no_place_and_are_no_step(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["k"], value=weight("", 3)),
        helper.make_node("Mul", ["x", "k"], ["y"], name="scale"),
    ]
    told = plan_of(a_model(nodes, [], sizes=[1, 3]), name="m")
    assert [each.name for each in told.nodes] == ["scale"]
    assert [each.name for each in told.places] == ["y"]


def test_each_bucket_of_shapes_has_a_plan_of_its_own_that_is_made_once() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    plans = Plans(a_model(nodes, [], sizes=["N", 4]), name="m")
    of_two = plans.of({"x": (2, 4)})
    assert [plans.of({"x": (rows, 4)}).plan.lower_bound_bytes for rows in (1, 64)] == [64, 64 * 4 * 4]
    assert plans.of({"x": (2, 4)}) is of_two
