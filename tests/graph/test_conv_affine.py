"""Conv and ConvTranspose take in the map per channel that follows them."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest

from graph import oracle
from graph.building import Drawing
from graph.oracle import FOLDING, operators, optimized

assert_lossless = partial(oracle.assert_lossless, only=FOLDING)


def conv_then_batchnorm(axes: int, *, group: int = 1, bias: bool = True, opset: int = 17) -> onnx.ModelProto:
    draw = Drawing(opset=opset)
    x = draw.input("x", ["batch", 4, *[6] * axes])
    inputs = [x, draw.weight(8, 4 // group, *[3] * axes)] + ([draw.weight(8)] if bias else [])
    y = draw.add("Conv", *inputs, group=group, pads=[1] * 2 * axes)
    return draw.model(draw.batchnorm(y, 8))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_a_batchnorm_after_a_conv_disappears(axes, group, bias):
    after, counts = assert_lossless(conv_then_batchnorm(axes, group=group, bias=bias))
    assert operators(after) == ["Conv"]
    assert counts == {"conv-batchnorm": 1}


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 14, 15, 18, 21, 22])
def test_it_does_so_in_every_opset(opset):
    after, _ = assert_lossless(conv_then_batchnorm(2, opset=opset))
    assert operators(after) == ["Conv"]


@pytest.mark.parametrize("group", [1, 2])
def test_a_batchnorm_after_a_transposed_conv_disappears(group):
    draw = Drawing()
    x = draw.input("x", ["batch", 4, 5, 5])
    y = draw.add(
        "ConvTranspose",
        x,
        draw.weight(4, 6 // group, 3, 3),
        draw.weight(6),
        group=group,
        strides=[2, 2],
        output_padding=[1, 1],
    )
    after, _ = assert_lossless(draw.model(draw.batchnorm(y, 6)))
    assert operators(after) == ["ConvTranspose"]


def test_a_batchnorm_in_double_precision_disappears():
    draw = Drawing()
    x = draw.input("x", ["batch", 3, 5, 5], np.float64)
    y = draw.add("Conv", x, draw.weight(4, 3, 3, 3, dtype=np.float64))
    after, _ = assert_lossless(draw.model(draw.batchnorm(y, 4, dtype=np.float64)))
    assert operators(after) == ["Conv"]


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", [(), (1,), (5, 1, 1), (1, 5, 1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("convolution", ["Conv", "ConvTranspose"])
def test_arithmetic_with_a_constant_per_channel_disappears(operator, shape, first, convolution):
    draw = Drawing()
    x = draw.input("x", ["batch", 3, 6, 6])
    weight = draw.weight(5, 3, 3, 3) if convolution == "Conv" else draw.weight(3, 5, 3, 3)
    y = draw.add(convolution, x, weight, draw.weight(5), pads=[1, 1, 0, 0])
    operands = [y, draw.positive(*shape)]
    model = draw.model(draw.add(operator, *(operands if first else operands[::-1])))
    after, _ = assert_lossless(model)
    kept = operator == "Div" and not first
    assert operators(after) == ([convolution, "Div"] if kept else [convolution])


def test_a_chain_of_maps_disappears():
    draw = Drawing()
    x = draw.input("x", ["batch", 3, 6, 6])
    y = draw.add("Conv", x, draw.weight(5, 3, 3, 3))
    y = draw.add("Div", draw.add("Sub", y, draw.weight(5, 1, 1)), draw.positive(5, 1, 1))
    after, counts = assert_lossless(draw.model(draw.batchnorm(y, 5)))
    assert operators(after) == ["Conv"]
    assert sum(counts.values()) == 3


@pytest.mark.parametrize("shape", [(6, 6), (5, 6, 6), (5, 6, 1), (2, 5, 1, 1), (1, 1, 5, 1, 1), (6,)])
def test_a_constant_that_varies_otherwise_stays(shape):
    draw = Drawing()
    x = draw.input("x", [1, 3, 8, 8])
    y = draw.add("Conv", x, draw.weight(5, 3, 3, 3))
    after, counts = assert_lossless(draw.model(draw.add("Mul", y, draw.weight(*shape))))
    assert counts == {}
    assert operators(after) == ["Conv", "Mul"]


def test_a_constant_that_widens_a_single_channel_stays():
    draw = Drawing()
    y = draw.add("Conv", draw.input("x", ["batch", 3, 8, 8]), draw.weight(1, 3, 3, 3))
    _, counts = assert_lossless(draw.model(draw.add("Add", y, draw.weight(7, 1, 1))))
    assert counts == {}


def test_a_batchnorm_in_training_mode_stays():
    draw = Drawing()
    y = draw.add("Conv", draw.input("x", [2, 3, 8, 8]), draw.weight(4, 3, 3, 3))
    parts = [draw.positive(4), draw.weight(4), draw.weight(4), draw.positive(4)]
    z, _, _ = draw.several(3, "BatchNormalization", y, *parts, training_mode=1)
    model = draw.model(z)
    after, counts = optimized(model, only=FOLDING)
    assert counts == {}
    assert operators(after) == ["Conv", "BatchNormalization"]


@pytest.mark.parametrize("which", ["weight", "operand"])
def test_a_weight_that_callers_can_override_is_not_folded(which):
    draw = Drawing()
    x = draw.input("x", [1, 3, 8, 8])
    y = draw.add("Conv", x, draw.weight(4, 3, 3, 3, overridable=which == "weight"))
    model = draw.model(draw.add("Mul", y, draw.weight(4, 1, 1, overridable=which == "operand")))
    given = {"x": np.ones((1, 3, 8, 8), np.float32)}
    name, shape = ("w0", (4, 3, 3, 3)) if which == "weight" else ("w1", (4, 1, 1))
    overridden = given | {name: np.full(shape, 2, np.float32)}
    after, counts = assert_lossless(model, feeds=[given, overridden])
    assert counts == {}
    assert operators(after) == ["Conv", "Mul"]


def test_a_conv_with_another_reader_stays():
    draw = Drawing()
    y = draw.add("Conv", draw.input("x", ["batch", 3, 8, 8]), draw.weight(4, 3, 3, 3))
    _, counts = assert_lossless(draw.model(draw.batchnorm(y, 4), draw.add("Relu", y)))
    assert counts == {}


def test_a_conv_whose_result_is_an_output_stays():
    draw = Drawing()
    y = draw.add("Conv", draw.input("x", ["batch", 3, 8, 8]), draw.weight(4, 3, 3, 3))
    _, counts = assert_lossless(draw.model(draw.batchnorm(y, 4), y))
    assert counts == {}


def test_a_conv_read_by_a_nested_graph_too_stays():
    draw = Drawing()
    y = draw.add("Conv", draw.input("x", [2, 3, 8, 8]), draw.weight(4, 3, 3, 3))
    yes, no = Drawing(prefix="yes_"), Drawing(prefix="no_")
    z = draw.add(
        "If",
        draw.input("condition", [], np.bool_),
        then_branch=yes.body(yes.add("Identity", y)),
        else_branch=no.body(no.add("Neg", y)),
    )
    model = draw.model(draw.batchnorm(y, 4), z)
    feeds = [{"x": np.ones((2, 3, 8, 8), np.float32), "condition": np.array(condition)} for condition in (True, False)]
    _, counts = assert_lossless(model, feeds=feeds)
    assert counts == {}


def test_a_conv_in_a_branch_takes_its_batchnorm_in():
    draw = Drawing()
    x = draw.input("x", [2, 3, 8, 8])
    branches = []
    for seed, prefix in enumerate(("yes", "no")):
        inner = Drawing(seed=seed, prefix=prefix)
        y = inner.batchnorm(inner.add("Conv", x, inner.weight(4, 3, 3, 3)), 4)
        branches.append(inner.body(y))
    z = draw.add("If", draw.input("condition", [], np.bool_), then_branch=branches[0], else_branch=branches[1])
    model = draw.model(z)
    feeds = [{"x": np.ones((2, 3, 8, 8), np.float32), "condition": np.array(condition)} for condition in (True, False)]
    after, counts = assert_lossless(model, feeds=feeds)
    assert counts == {"conv-batchnorm": 2}
    assert [len(attribute.g.node) for attribute in after.graph.node[0].attribute] == [1, 1]


def test_a_weight_that_two_convs_share_is_folded_for_each():
    draw = Drawing()
    x = draw.input("x", ["batch", 4, 8, 8])
    weight = draw.weight(4, 4, 3, 3)
    y = draw.batchnorm(draw.add("Conv", x, weight), 4)
    z = draw.batchnorm(draw.add("Conv", draw.add("Relu", y), weight), 4)
    after, _ = assert_lossless(draw.model(z))
    assert operators(after) == ["Conv", "Relu", "Conv"]
    assert weight not in {tensor.name for tensor in after.graph.initializer}


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_infinities_and_nan_pass_through_as_before(value):
    model = conv_then_batchnorm(2)
    x = np.ones((1, 4, 6, 6), np.float32)
    x[0, 2, 3, 3] = value
    assert_lossless(model, feeds=[{"x": x}])


def test_a_map_that_is_not_finite_stays():
    draw = Drawing()
    y = draw.add("Conv", draw.input("x", [1, 3, 8, 8]), draw.weight(2, 3, 3, 3))
    after, counts = assert_lossless(draw.model(draw.add("Div", y, draw.constant([[[1.0]], [[0.0]]]))))
    assert counts == {}
    assert operators(after) == ["Conv", "Div"]


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_a_map_that_would_leave_the_range_of_the_weights_stays(factor):
    draw = Drawing()
    weight = draw.constant(draw.random.standard_normal((2, 3, 3, 3)) * factor)
    y = draw.add("Conv", draw.input("x", [1, 3, 8, 8]), weight)
    model = draw.model(draw.add("Mul", y, draw.constant(factor)))
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)) / factor
    _, counts = assert_lossless(model, feeds=[{"x": x.astype(np.float32)}])
    assert counts == {}


def test_the_outputs_keep_their_names_and_their_order():
    draw = Drawing()
    x = draw.input("x", ["batch", 3, 8, 8])
    names = [draw.batchnorm(draw.add("Conv", x, draw.weight(4, 3, 3, 3)), 4) for _ in range(3)][::-1]
    after, _ = assert_lossless(draw.model(*names))
    assert [output.name for output in after.graph.output] == names
