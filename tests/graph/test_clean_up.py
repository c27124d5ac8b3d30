"""Clean-up: what goes, and what must not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graph.building import Drawing
from graph.oracle import assert_lossless, assert_same_answers, operators, optimized
from optimizer import models


def integers(draw: Drawing, *numbers: int) -> str:
    return draw.constant(numbers, np.int64)


def test_what_is_computed_twice_is_computed_once() -> None:
    draw = Drawing()
    x = draw.input("x", ["N", 4])
    found, _ = assert_lossless(draw.model(draw.add("Mul", draw.add("Exp", x), draw.add("Exp", x))))
    assert operators(found) == ["Exp", "Mul"]


def test_random_numbers_are_drawn_as_often_as_before() -> None:
    draw = Drawing()
    x = draw.input("x", [4])
    model = draw.model(draw.add("Sub", draw.add("Bernoulli", x), draw.add("Bernoulli", x)))
    after, _ = optimized(model)
    assert operators(after) == ["Bernoulli", "Bernoulli", "Sub"]


def test_two_outputs_that_are_the_same_keep_their_names() -> None:
    draw = Drawing()
    x = draw.input("x", ["N", 4])
    first, second = draw.add("Exp", x), draw.add("Exp", x)
    found, _ = assert_lossless(draw.model(first, second, draw.add("Identity", first)))
    assert [output.name for output in found.graph.output] == [first, second, "identity2"]


def test_an_output_that_is_an_input_stays_a_node_of_its_own() -> None:
    draw = Drawing()
    found, _ = assert_lossless(draw.model(draw.add("Identity", draw.input("x", ["N", 4]))))
    assert operators(found) == ["Identity"]


def test_what_changes_nothing_is_left_out() -> None:
    draw = Drawing()
    x = draw.input("x", ["N", 4])
    y = draw.add("Mul", draw.add("Add", x, draw.constant(0.0)), draw.constant([1.0]))
    y = draw.add("Transpose", draw.add("Cast", y, to=TensorProto.FLOAT), perm=[0, 1])
    y = draw.add("Concat", draw.add("Reshape", y, integers(draw, 0, 4)), axis=0)
    y = draw.add("Slice", y, integers(draw, 0), integers(draw, 2**62), integers(draw, 0))
    found, _ = assert_lossless(draw.model(draw.add("Exp", draw.add("Dropout", y))))
    assert operators(found) == ["Exp"]


def test_a_neutral_number_that_widens_the_shape_stays() -> None:
    draw = Drawing()
    x = draw.input("x", ["N"])
    found, _ = assert_lossless(draw.model(draw.add("Exp", draw.add("Add", x, draw.constant([[0.0]])))))
    assert operators(found) == ["Add", "Exp"]


def test_a_number_that_callers_may_override_is_not_taken_for_granted() -> None:
    draw = Drawing()
    x, one = draw.input("x", [2, 4]), draw.constant([1.0], overridable=True)
    shape = draw.constant([4, 2], np.int64, overridable=True)
    model = draw.model(draw.add("Reshape", draw.add("Mul", x, draw.add("Neg", one)), shape))
    after, _ = assert_lossless(model)
    feed = {"x": np.ones((2, 4), np.float32), "w0": np.array([5.0], np.float32), "w1": np.array([1, 8])}
    assert_same_answers(model, after, feed)


def test_constants_are_computed_unless_the_file_would_grow() -> None:
    draw = Drawing()
    x = draw.input("x", [1, 300])
    small = draw.add("Sqrt", draw.add("Add", draw.constant(2.0), draw.constant(7.0)))
    large = draw.add("Expand", draw.constant(1.5), integers(draw, 300, 300))
    found, _ = assert_lossless(draw.model(draw.add("MatMul", draw.add("Div", x, small), large)))
    assert operators(found) == ["Expand", "Div", "MatMul"]
    assert found.ByteSize() < 2000


def test_weights_that_only_a_transpose_reads_are_stored_transposed() -> None:
    draw = Drawing()
    x, weight = draw.input("x", ["N", 64]), draw.weight(100, 64)
    found, _ = assert_lossless(draw.model(draw.add("MatMul", x, draw.add("Transpose", weight, perm=[1, 0]))))
    assert operators(found) == ["MatMul"]


def test_quantized_weights_stay_quantized() -> None:
    draw = Drawing()
    x = draw.input("x", ["N", 8])
    scale, zero = draw.constant(0.1), draw.constant(0, np.int8)
    weight = draw.add("DequantizeLinear", draw.constant(np.arange(64).reshape(8, 8), np.int8), scale, zero)
    found, _ = assert_lossless(draw.model(draw.add("MatMul", x, weight)))
    assert operators(found) == ["DequantizeLinear", "MatMul"]


def heads(*, sizes: tuple[str | int, ...]) -> onnx.ModelProto:
    draw = Drawing()
    x = draw.input("x", sizes)
    whole = draw.add("Shape", x)
    parts = [
        draw.add("Unsqueeze", draw.add("Gather", whole, draw.constant(axis, np.int64)), integers(draw, 0))
        for axis in (0, 1)
    ]
    shape = draw.add("Concat", *parts, integers(draw, 4), integers(draw, 3), axis=0)
    return draw.model(draw.add("Exp", draw.add("Reshape", x, shape)))


@pytest.mark.parametrize("sizes", [("N", "S", 12), (2, 5, 12), ("N", 5, 12)])
def test_a_shape_that_is_rebuilt_from_sizes_is_a_constant(sizes: tuple[str | int, ...]) -> None:
    found, _ = assert_lossless(heads(sizes=sizes))
    assert operators(found) == ["Reshape", "Exp"]


def test_sizes_that_are_given_are_numbers_from_then_on() -> None:
    draw = Drawing()
    x = draw.input("x", ["N", "S", 4])
    whole = draw.add("Shape", x)
    picked = [draw.add("Gather", whole, integers(draw, axis)) for axis in (0, 1, 2)]
    rows = draw.add("Mul", picked[0], picked[1])
    model = draw.model(draw.add("Reshape", x, draw.add("Concat", rows, picked[2], axis=0)))
    after, _ = optimized(model, shapes={"x": (2, 3, 4)})
    assert operators(after) == ["Reshape"]
    assert_same_answers(model, after, {"x": np.arange(24, dtype=np.float32).reshape(2, 3, 4)})


def test_one_free_size_is_left_to_reshape_only_where_nothing_can_be_empty() -> None:
    draw = Drawing()
    x = draw.input("x", ["N", "S", 4])
    whole = draw.add("Shape", x)
    picked = [draw.add("Gather", whole, integers(draw, axis)) for axis in (0, 1, 2)]
    flat = draw.add("Concat", draw.add("Mul", picked[0], picked[1]), picked[2], axis=0)
    swapped = draw.add("Concat", picked[1], picked[0], picked[2], axis=0)
    model = draw.model(draw.add("Reshape", x, flat), draw.add("Reshape", x, swapped))
    found, _ = assert_lossless(model)
    assert operators(found).count("Concat") == 1


def test_values_that_a_branch_reads_from_outside_stay() -> None:
    inner = Drawing()
    branch = inner.body(inner.add("Identity", "shared"))
    other = Drawing()
    alternative = other.body(other.add("Neg", "shared"))
    draw = Drawing()
    x, chosen = draw.input("x", [3]), draw.input("chosen", [], np.bool_)
    shared = draw.add("Identity", draw.add("Add", x, draw.constant(0.0)))
    draw._nodes[-1].output[0] = shared = "shared"
    result = draw.add("If", chosen, then_branch=branch, else_branch=alternative)
    model = draw.model(result, draw.add("Exp", shared))
    assert_lossless(model)


@pytest.mark.parametrize("model", [models.looping(), models.scanning()], ids=["Loop", "Scan"])
def test_what_is_constant_in_the_body_of_a_loop_is_computed_ahead(model: onnx.ModelProto) -> None:
    feeds = [{"x": np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)} for rows in (1, 3)]
    found, counts = assert_lossless(model, feeds=feeds)
    (body,) = [attribute.g for attribute in found.graph.node[0].attribute if attribute.name == "body"]
    assert counts["constant-folding"] == 1
    assert "twice" not in {name for node in body.node for name in node.output}


def test_a_cycle_of_names_is_no_reason_to_crash() -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Neg", ["a"], ["b"])],
        "cycle",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(Exception, match="not sound"):
        optimized(model)
