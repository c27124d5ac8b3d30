"""Sizes and further dimensions: asked for and added in one operator, where that is the same."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import helper

from graph.building import Drawing
from graph.oracle import assert_lossless, assert_same_answers, operators, optimized, run_plainly

SIZE = ["axis-size"]


def integers(draw: Drawing, *numbers: int) -> str:
    return draw.constant(numbers, np.int64)


def expanded(draw: Drawing, size: str) -> str:
    """Something that needs a size."""
    return draw.add("Expand", draw.constant([[1.0]]), draw.add("Concat", size, integers(draw, 2), axis=0))


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
@pytest.mark.parametrize("unsqueezed", [True, False])
def test_a_size_is_asked_for_in_one_operator(axis: int, unsqueezed: bool) -> None:
    draw = Drawing()
    whole = draw.add("Shape", draw.input("x", ["N", "S"]))
    if unsqueezed:
        number = draw.add("Gather", whole, draw.constant(axis, np.int64))
        size = draw.add("Unsqueeze", number, integers(draw, 0))
    else:
        size = draw.add("Gather", whole, integers(draw, axis))
    found, counts = assert_lossless(draw.model(expanded(draw, size)), only=SIZE)
    assert counts == {"axis-size": 1}
    assert operators(found) == ["Shape", "Concat", "Expand"]


def test_the_same_size_is_asked_for_once() -> None:
    draw = Drawing()
    whole = draw.add("Shape", draw.input("x", ["N", "S"]))
    number = draw.add("Gather", whole, draw.constant(1, np.int64))
    sizes = [draw.add("Unsqueeze", number, integers(draw, 0)), draw.add("Gather", whole, integers(draw, 1))]
    model = draw.model(*(expanded(draw, size) for size in sizes), draw.add("Gather", whole, integers(draw, 0)))
    found, _ = assert_lossless(model, only=SIZE)
    assert operators(found).count("Shape") == 2
    assert not {"Gather", "Unsqueeze"} & set(operators(found))


def test_a_size_that_the_model_asks_for_later_is_not_there_yet() -> None:
    draw = Drawing()
    x = draw.input("x", ["N", "S"])
    first = expanded(draw, draw.add("Gather", draw.add("Shape", x), integers(draw, 1)))
    model = draw.model(first, draw.add("Shape", x, start=1, end=2))
    found, _ = assert_lossless(model, only=SIZE)
    assert operators(found) == ["Shape", "Concat", "Expand", "Shape"]


def test_a_number_that_others_read_is_still_picked() -> None:
    draw = Drawing()
    number = draw.add("Gather", draw.add("Shape", draw.input("x", ["N", "S"])), draw.constant(1, np.int64))
    model = draw.model(expanded(draw, draw.add("Unsqueeze", number, integers(draw, 0))), number)
    assert optimized(model, only=SIZE)[1] == {}


def test_a_size_that_is_not_there_fails_as_before() -> None:
    draw = Drawing()
    whole = draw.add("Shape", draw.input("x", ["N", "S"]))
    draw.add("Gather", whole, draw.constant([1], np.int64))
    draw._weights[-1].CopyFrom(onnx.numpy_helper.from_array(np.array([2]), draw._weights[-1].name))
    graph = draw.body(draw._nodes[-1].output[0])
    graph.output[0].CopyFrom(helper.make_tensor_value_info(graph.output[0].name, onnx.TensorProto.INT64, [1]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    after, counts = optimized(model, only=SIZE)
    assert counts == {}
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        run_plainly(after, {"x": np.zeros((1, 1), np.float32)})


def test_before_opset_15_shape_gives_all_sizes() -> None:
    draw = Drawing(opset=14)
    whole = draw.add("Shape", draw.input("x", ["N", "S"]))
    assert optimized(draw.model(expanded(draw, draw.add("Gather", whole, integers(draw, 1)))), only=SIZE)[1] == {}


AXES = [(0,), (1,), (2,), (-1,), (-2,), (0, 1), (1, 3), (-1, 0)]


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize(("first", "second"), list(itertools.product(AXES, repeat=2)))
def test_two_unsqueezes_are_one(first: tuple[int, ...], second: tuple[int, ...], opset: int) -> None:
    draw = Drawing(opset=opset)
    y = draw.add("Exp", draw.input("x", ["N", 2]))
    for axes in (first, second):
        y = draw.add("Unsqueeze", y, axes=list(axes)) if opset < 13 else draw.add("Unsqueeze", y, integers(draw, *axes))
    model = draw.model(draw.add("Neg", y))
    found, counts = optimized(model, only=["unsqueeze-chain"])
    assert counts == {"unsqueeze-chain": 1}
    assert operators(found) == ["Exp", "Unsqueeze", "Neg"]
    feed = {"x": np.arange(6, dtype=np.float32).reshape(3, 2)}
    assert_same_answers(model, found, feed)


def test_an_unsqueeze_that_others_read_stays() -> None:
    draw = Drawing()
    first = draw.add("Unsqueeze", draw.add("Exp", draw.input("x", ["N", 2])), integers(draw, 1))
    model = draw.model(draw.add("Neg", draw.add("Unsqueeze", first, integers(draw, 1))), draw.add("Abs", first))
    found, _ = assert_lossless(model)
    assert operators(found).count("Unsqueeze") == 2
