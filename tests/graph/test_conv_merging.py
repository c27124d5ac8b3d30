"""Chains of Convs become one where that multiplies less; siblings and shared Convs only when asked for."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from graph import oracle
from graph.building import Drawing
from graph.oracle import FOLDING, operators

assert_lossless = partial(oracle.assert_lossless, only=FOLDING)

SPECULATIVE = ["conv-siblings", "conv-shared-batchnorm"]


def chain(draw, x, *, sizes, taps, first=None, second=None, biases=(True, True)):
    """Two Convs: ``sizes`` of channels from input to result, ``taps`` of each along both axes."""
    for (inputs, outputs), size, attributes, bias in zip(
        pairwise(sizes), taps, (first or {}, second or {}), biases, strict=True
    ):
        parts = [draw.weight(outputs, inputs, size, size)] + ([draw.weight(outputs)] if bias else [])
        x = draw.add("Conv", x, *parts, **attributes)
    return x


@pytest.mark.parametrize("taps", [(1, 1), (3, 1), (1, 3)])
@pytest.mark.parametrize("biases", [(True, True), (True, False), (False, True), (False, False)])
def test_a_wide_middle_disappears(taps, biases):
    draw = Drawing()
    x = draw.input("x", ["batch", 3, 7, 7])
    after, counts = assert_lossless(draw.model(chain(draw, x, sizes=(3, 32, 4), taps=taps, biases=biases)))
    assert operators(after) == ["Conv"]
    assert counts == {"conv-chain": 1}


@pytest.mark.parametrize("taps", [(1, 1), (3, 1), (1, 3)])
def test_a_bottleneck_stays(taps):
    draw = Drawing()
    x = draw.input("x", ["batch", 16, 7, 7])
    _, counts = assert_lossless(draw.model(chain(draw, x, sizes=(16, 2, 16), taps=taps)))
    assert counts == {}


@pytest.mark.parametrize(
    "attributes", [{"strides": [2, 1]}, {"pads": [1, 0, 2, 1]}, {"dilations": [2, 2]}, {"auto_pad": "SAME_UPPER"}]
)
@pytest.mark.parametrize("which", ["first", "second"])
def test_the_larger_conv_keeps_its_attributes(attributes, which):
    draw = Drawing()
    x = draw.input("x", ["batch", 3, 7, 7])
    taps = (3, 1) if which == "first" else (1, 3)
    y = chain(draw, x, sizes=(3, 32, 4), taps=taps, biases=(which == "first", True), **{which: attributes})
    after, _ = assert_lossless(draw.model(y))
    assert operators(after) == ["Conv"]


@pytest.mark.parametrize("which", ["first", "second"])
def test_a_pointwise_conv_with_strides_keeps_them(which):
    draw = Drawing()
    x = draw.input("x", ["batch", 3, 7, 7])
    y = chain(draw, x, sizes=(3, 32, 4), taps=(1, 1), **{which: {"strides": [2, 3]}})
    after, _ = assert_lossless(draw.model(y))
    assert operators(after) == ["Conv"]


def test_padding_that_would_see_a_bias_keeps_both():
    draw = Drawing()
    x = draw.input("x", ["batch", 3, 7, 7])
    y = chain(draw, x, sizes=(3, 32, 4), taps=(1, 3), second={"pads": [1, 1, 1, 1]})
    _, counts = assert_lossless(draw.model(y))
    assert counts == {}


@pytest.mark.parametrize(
    ("taps", "first", "second"),
    [
        ((3, 3), {}, {}),
        ((3, 1), {}, {"strides": [2, 2]}),
        ((3, 1), {}, {"pads": [1, 1, 1, 1]}),
        ((1, 3), {"strides": [2, 2]}, {}),
        ((1, 3), {"pads": [1, 1, 1, 1]}, {}),
    ],
)
def test_convs_that_do_not_map_positions_alone_stay(taps, first, second):
    draw = Drawing()
    x = draw.input("x", ["batch", 3, 9, 9])
    y = chain(draw, x, sizes=(3, 32, 4), taps=taps, first=first, second=second)
    _, counts = assert_lossless(draw.model(y))
    assert counts == {}


def test_grouped_convs_stay():
    draw = Drawing()
    y = draw.add("Conv", draw.input("x", ["batch", 4, 7, 7]), draw.weight(32, 2, 1, 1), group=2)
    _, counts = assert_lossless(draw.model(draw.add("Conv", y, draw.weight(4, 32, 1, 1))))
    assert counts == {}


def test_a_middle_that_somebody_else_reads_stays():
    draw = Drawing()
    y = draw.add("Conv", draw.input("x", ["batch", 3, 7, 7]), draw.weight(32, 3, 1, 1))
    _, counts = assert_lossless(draw.model(draw.add("Conv", y, draw.weight(4, 32, 1, 1)), draw.add("Relu", y)))
    assert counts == {}


@pytest.mark.parametrize("opset", [7, 12, 13, 18, 21])
@pytest.mark.parametrize("attributes", [{}, {"pads": [1, 1, 1, 1], "strides": [2, 2]}])
def test_siblings_become_one_conv_and_a_split(opset, attributes):
    draw = Drawing(opset=opset)
    x = draw.input("x", ["batch", 3, 7, 7])
    outputs = [
        draw.add("Neg", draw.add("Conv", x, draw.weight(size, 3, 3, 3), *bias, **attributes))
        for size, bias in ((4, []), (1, [draw.weight(1)]), (6, [draw.weight(6)]))
    ]
    after, counts = assert_lossless(draw.model(*outputs), only=SPECULATIVE)
    assert operators(after) == ["Conv", "Split", "Neg", "Neg", "Neg"]
    assert counts == {"conv-siblings": 1}


@pytest.mark.parametrize("opset", [7, 13])
@pytest.mark.parametrize("curve", [("Relu", {}), ("LeakyRelu", {"alpha": 0.3}), ("Sigmoid", {})])
def test_a_curve_that_siblings_share_is_drawn_before_the_split(opset, curve):
    draw = Drawing(opset=opset)
    x, (operator, attributes) = draw.input("x", ["batch", 3, 7, 7]), curve
    outputs = [draw.add(operator, draw.add("Conv", x, draw.weight(4, 3, 3, 3)), **attributes) for _ in range(3)]
    after, _ = assert_lossless(draw.model(*outputs[::-1]), only=SPECULATIVE)
    assert operators(after) == ["Conv", operator, "Split"]
    assert [output.name for output in after.graph.output] == outputs[::-1]


@pytest.mark.parametrize("other", [("Tanh", {}), ("LeakyRelu", {"alpha": 0.2}), None])
def test_curves_that_differ_or_are_not_alone_stay_behind_the_split(other):
    draw = Drawing()
    x = draw.input("x", ["batch", 3, 7, 7])
    first, second = (draw.add("Conv", x, draw.weight(4, 3, 3, 3)) for _ in range(2))
    outputs = [draw.add("LeakyRelu", first, alpha=0.3)]
    outputs += [draw.add(other[0], second, **other[1])] if other else [draw.add("LeakyRelu", second, alpha=0.3), second]
    after, counts = assert_lossless(draw.model(*outputs), only=SPECULATIVE)
    assert counts == {"conv-siblings": 1}
    assert operators(after)[:2] == ["Conv", "Split"]
    assert len(after.graph.node) == 4


def test_siblings_whose_results_are_outputs_keep_their_names():
    draw = Drawing()
    x = draw.input("x", ["batch", 3, 7, 7])
    names = [draw.add("Conv", x, draw.weight(4, 3, 3, 3)) for _ in range(2)][::-1]
    after, counts = assert_lossless(draw.model(*names), only=SPECULATIVE)
    assert counts == {"conv-siblings": 1}
    assert [output.name for output in after.graph.output] == names


@pytest.mark.parametrize("other", [{"strides": [2, 2]}, {"dilations": [2, 2]}, {"pads": [1, 1, 1, 1]}])
def test_siblings_that_differ_in_more_than_weights_stay(other):
    draw = Drawing()
    x = draw.input("x", ["batch", 3, 7, 7])
    outputs = [draw.add("Conv", x, draw.weight(4, 3, 3, 3), **attributes) for attributes in ({}, other)]
    _, counts = assert_lossless(draw.model(*outputs), only=SPECULATIVE)
    assert counts == {}


def test_siblings_with_groups_or_other_kernels_stay():
    draw = Drawing()
    x = draw.input("x", ["batch", 4, 7, 7])
    outputs = [draw.add("Conv", x, draw.weight(4, 2, 3, 3), group=2) for _ in range(2)]
    outputs += [draw.add("Conv", x, draw.weight(4, 4, 3, taps)) for taps in (1, 2)]
    _, counts = assert_lossless(draw.model(*outputs), only=SPECULATIVE)
    assert counts == {}


def test_a_batchnorm_on_a_shared_conv_gets_a_conv_of_its_own():
    draw = Drawing()
    y = draw.add("Conv", draw.input("x", ["batch", 3, 7, 7]), draw.weight(4, 3, 1, 1), draw.weight(4))
    model = draw.model(draw.batchnorm(y, 4), draw.add("Relu", y))
    after, counts = assert_lossless(model, only=SPECULATIVE[1:])
    assert sorted(operators(after)) == ["Conv", "Conv", "Relu"]
    assert counts == {"conv-shared-batchnorm": 1}
    assert len({node.name for node in after.graph.node}) == 3


def test_nothing_speculative_runs_unasked():
    draw = Drawing()
    x = draw.input("x", ["batch", 3, 7, 7])
    y = draw.add("Conv", x, draw.weight(4, 3, 1, 1), draw.weight(4))
    _, counts = assert_lossless(draw.model(draw.batchnorm(y, 4), y, draw.add("Conv", x, draw.weight(4, 3, 1, 1))))
    assert counts == {}


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_infinities_and_nan_pass_through_siblings(value):
    draw = Drawing()
    x = draw.input("x", [1, 3, 7, 7])
    image = np.ones((1, 3, 7, 7), np.float32)
    image[0, 0, 3, 3] = value
    model = draw.model(*[draw.add("Conv", x, draw.weight(4, 3, 3, 3)) for _ in range(2)])
    assert_lossless(model, only=SPECULATIVE, feeds=[{"x": image}])
