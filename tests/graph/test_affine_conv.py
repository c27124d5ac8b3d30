"""Convs take in the map per channel that their input goes through first: input scaling, BatchNormalization."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from graph import oracle
from graph.building import Drawing
from graph.oracle import FOLDING, operators

assert_lossless = partial(oracle.assert_lossless, only=FOLDING)


def scaled_image(draw, *, mean, std):
    """(x / 255 - mean) / std, as it is exported with a model; 3 channels."""
    x = draw.add("Div", draw.input("x", ["batch", 3, 9, 9]), draw.constant(255))
    x = draw.add("Sub", x, draw.constant(np.reshape(mean, (1, 3, 1, 1))))
    return draw.add("Div", x, draw.constant(np.reshape(std, (1, 3, 1, 1))))


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 2, 1, 0]])
@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("operator", ["Div", "Mul"])
def test_a_scale_disappears_whatever_the_padding(pads, group, operator):
    draw = Drawing()
    x = draw.add(operator, draw.input("x", ["batch", 3, 9, 9]), draw.positive(3, 1, 1))
    y = draw.add("Conv", x, draw.weight(6, 3 // group, 3, 3), draw.weight(6), pads=pads, group=group)
    after, counts = assert_lossless(draw.model(y))
    assert operators(after) == ["Conv"]
    assert counts == {"affine-conv": 1}


def test_image_scaling_disappears_where_nothing_is_padded():
    draw = Drawing()
    x = scaled_image(draw, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
    after, _ = assert_lossless(draw.model(draw.add("Conv", x, draw.weight(6, 3, 3, 3), draw.weight(6))))
    assert operators(after) == ["Conv"]


@pytest.mark.parametrize("padding", [{"pads": [1, 1, 1, 1]}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}])
def test_image_scaling_before_a_padded_conv_becomes_one_add(padding):
    draw = Drawing()
    x = scaled_image(draw, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
    y = draw.add("Conv", x, draw.weight(6, 3, 3, 3), draw.weight(6), strides=[2, 2], **padding)
    after, _ = assert_lossless(draw.model(y))
    assert operators(after) == ["Add", "Conv"]


@pytest.mark.parametrize("operator", ["Add", "Sub"])
def test_a_shift_before_a_padded_conv_stays(operator):
    draw = Drawing()
    x = draw.add(operator, draw.input("x", ["batch", 3, 9, 9]), draw.weight(3, 1, 1))
    _, counts = assert_lossless(draw.model(draw.add("Conv", x, draw.weight(6, 3, 3, 3), pads=[1, 0, 0, 0])))
    assert counts == {}


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "VALID"])
def test_a_pointwise_conv_pads_nothing(auto_pad):
    draw = Drawing()
    x = draw.batchnorm(draw.input("x", ["batch", 3, 9, 9]), 3)
    after, counts = assert_lossless(draw.model(draw.add("Conv", x, draw.weight(6, 3, 1, 1), auto_pad=auto_pad)))
    assert operators(after) == ["Conv"]
    assert counts == {"batchnorm-conv": 1}


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("group", [1, 2])
def test_a_batchnorm_before_a_conv_disappears(axes, group):
    draw = Drawing()
    x = draw.batchnorm(draw.input("x", ["batch", 4, *[5] * axes]), 4)
    y = draw.add("Conv", x, draw.weight(6, 4 // group, *[2] * axes), group=group, dilations=[2] * axes)
    after, _ = assert_lossless(draw.model(y))
    assert operators(after) == ["Conv"]


def test_a_batchnorm_before_a_padded_conv_stays():
    draw = Drawing()
    x = draw.batchnorm(draw.input("x", ["batch", 4, 6, 6]), 4)
    _, counts = assert_lossless(draw.model(draw.add("Conv", x, draw.weight(6, 4, 3, 3), pads=[1, 1, 1, 1])))
    assert counts == {}


def test_all_convs_that_read_a_batchnorm_take_it_in():
    draw = Drawing()
    x = draw.batchnorm(draw.input("x", ["batch", 4, 6, 6]), 4)
    after, _ = assert_lossless(draw.model(*[draw.add("Conv", x, draw.weight(6, 4, taps, taps)) for taps in (1, 3)]))
    assert operators(after) == ["Conv", "Conv"]


@pytest.mark.parametrize("other", ["Relu", "output", "padded", "weight"])
def test_a_batchnorm_that_somebody_else_reads_stays(other):
    draw = Drawing()
    x = draw.batchnorm(draw.input("x", ["batch", 4, 3, 3]), 4)
    outputs = [draw.add("Conv", x, draw.weight(6, 4, 3, 3))]
    match other:
        case "Relu":
            outputs.append(draw.add("Relu", x))
        case "output":
            outputs.append(x)
        case "padded":
            outputs.append(draw.add("Conv", x, draw.weight(6, 4, 3, 3), pads=[1, 1, 1, 1]))
        case "weight":
            outputs.append(draw.add("Conv", draw.input("z", [2, 4, 5, 5]), x))
    _, counts = assert_lossless(draw.model(*outputs))
    assert counts == {}


@pytest.mark.parametrize("shape", [(9, 9), (1, 9, 1), (3, 9, 9), (1, 1, 1, 9), (2, 1, 1, 1)])
def test_a_constant_that_varies_otherwise_stays(shape):
    draw = Drawing()
    x = draw.add("Mul", draw.input("x", [1, 3, 9, 9]), draw.weight(*shape))
    _, counts = assert_lossless(draw.model(draw.add("Conv", x, draw.weight(6, 3, 3, 3))))
    assert counts == {}


@pytest.mark.parametrize("sizes", [[3, 9, 9], ["batch", 1, 9, 9], [1, 9, 9]])
def test_a_constant_that_gives_the_input_more_dimensions_or_channels_stays(sizes):
    draw = Drawing()
    x = draw.add("Mul", draw.input("x", sizes), draw.weight(1, 3, 1, 1))
    _, counts = assert_lossless(draw.model(draw.add("Conv", x, draw.weight(6, 3, 3, 3))))
    assert counts == {}


def test_an_input_of_unknown_rank_is_left():
    draw = Drawing()
    x = draw.add("Reshape", draw.input("x", ["size"]), draw.input("shape", ["rank"], np.int64))
    y = draw.add("Conv", draw.add("Mul", x, draw.weight(1, 3, 1, 1)), draw.weight(6, 3, 3, 3))
    y = draw.add("Reshape", y, draw.constant([-1], np.int64))
    feed = {"x": np.ones(243, np.float32), "shape": np.array([3, 9, 9])}
    _, counts = assert_lossless(draw.model(y), feeds=[feed])
    assert counts == {}


def test_a_shift_so_large_that_digits_would_be_lost_stays():
    draw = Drawing()
    x = draw.add("Sub", draw.input("x", ["batch", 3, 9, 9]), draw.constant(1e6))
    model = draw.model(draw.add("Conv", x, draw.weight(6, 3, 3, 3)))
    near = (1e6 + np.random.default_rng(0).standard_normal((1, 3, 9, 9))).astype(np.float32)
    _, counts = assert_lossless(model, feeds=[{"x": near}])
    assert counts == {}


@pytest.mark.parametrize("operator", ["Div", "Sub"])
def test_a_constant_on_the_left(operator):
    draw = Drawing()
    x = draw.add(operator, draw.positive(3, 1, 1), draw.input("x", ["batch", 3, 9, 9]))
    after, _ = assert_lossless(draw.model(draw.add("Conv", x, draw.weight(6, 3, 3, 3))))
    assert operators(after) == (["Conv"] if operator == "Sub" else ["Div", "Conv"])


def test_a_value_that_is_added_to_itself_is_no_map():
    draw = Drawing()
    x = draw.input("x", ["batch", 3, 9, 9])
    _, counts = assert_lossless(draw.model(draw.add("Conv", draw.add("Add", x, x), draw.weight(6, 3, 3, 3))))
    assert counts == {}


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_infinities_and_nan_pass_through_as_before(value):
    draw = Drawing()
    x = scaled_image(draw, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
    model = draw.model(draw.add("Conv", x, draw.weight(6, 3, 3, 3), pads=[1, 1, 1, 1]))
    image = np.ones((1, 3, 9, 9), np.float32)
    image[0, 0, 0, 0] = value
    assert_lossless(model, feeds=[{"x": image}])


def test_a_scale_of_zero_before_a_padded_conv_stays():
    draw = Drawing()
    x = draw.add("Add", draw.input("x", ["batch", 3, 9, 9]), draw.constant(1.0))
    x = draw.add("Mul", x, draw.constant([[[0.0]], [[1.0]], [[2.0]]]))
    x = draw.add("Add", x, draw.constant(1.0))
    _, counts = assert_lossless(draw.model(draw.add("Conv", x, draw.weight(6, 3, 3, 3), pads=[1, 1, 1, 1])))
    assert counts == {}


BEHIND = ["behind-move", "affine-conv"]


@pytest.mark.parametrize(("operator", "swapped"), [("Div", False), ("Mul", False), ("Mul", True)])
@pytest.mark.parametrize("move", ["Unsqueeze", "Transpose", "Reshape"])
def test_a_scale_before_what_only_moves_an_image_disappears(operator, swapped, move):
    draw = Drawing()
    sizes = {"Unsqueeze": ["batch", 9, 9], "Transpose": ["batch", 9, 9, 1], "Reshape": ["batch", 81]}[move]
    parts = [draw.input("x", sizes), draw.constant(16)]
    x = draw.add(operator, *parts[:: -1 if swapped else 1])
    told = {"Unsqueeze": [1], "Reshape": [-1, 1, 9, 9]}
    inputs = [draw.constant(told[move], np.int64)] if move in told else []
    x = draw.add(move, x, *inputs, **({} if inputs else {"perm": [0, 3, 1, 2]}))
    model = draw.model(draw.add("Conv", x, draw.weight(6, 1, 3, 3), draw.weight(6), pads=[1, 1, 1, 1]))
    after, counts = oracle.assert_lossless(model, only=BEHIND)
    assert operators(after) == [move, "Conv"]
    assert counts == dict.fromkeys(BEHIND, 1)


@pytest.mark.parametrize("why", ["wide", "read", "output", "denominator"])
def test_a_scale_stays_where_it_cannot_reach_a_convolution(why):
    draw = Drawing()
    x = draw.input("x", ["batch", 9, 9])
    parts = [x, draw.positive(9, 1) if why == "wide" else draw.constant(16)]
    scaled = draw.add("Div", *parts[:: -1 if why == "denominator" else 1])
    moved = draw.add("Unsqueeze", scaled, draw.constant([1], np.int64))
    y = draw.add("Conv", moved, draw.weight(6, 1, 3, 3))
    others = {"read": [draw.add("Relu", moved)], "output": [scaled]}.get(why, [])
    after, counts = oracle.assert_lossless(draw.model(y, *others), only=BEHIND)
    assert "affine-conv" not in counts
    assert operators(after).count("Div") == 1
