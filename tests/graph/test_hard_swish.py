"""HardSwish and HardSigmoid are found where an exporter wrote them out."""

from __future__ import annotations

import numpy as np
import pytest

from graph.building import Drawing
from graph.oracle import assert_lossless, operators

ONLY = ["hard-swish"]


def written_out(draw, x, *, order="divide, multiply", shift=3.0, high=6.0, sixth=6.0):
    if draw.opset < 11:
        y = draw.add("Clip", draw.add("Add", x, draw.constant(shift)), min=0.0, max=high)
    else:
        y = draw.add("Clip", draw.add("Add", draw.constant(shift), x), draw.constant(0.0), draw.constant(high))
    for step in order.split(", "):
        match step:
            case "divide":
                y = draw.add("Div", y, draw.constant(sixth))
            case "scale":
                y = draw.add("Mul", draw.constant(1 / sixth), y)
            case "multiply":
                y = draw.add("Mul", x, y)
    return y


@pytest.mark.parametrize("order", ["divide, multiply", "multiply, divide", "scale, multiply", "multiply, scale"])
@pytest.mark.parametrize(
    ("opset", "wanted"), [(8, ["HardSigmoid", "Mul"]), (13, ["HardSigmoid", "Mul"]), (14, ["HardSwish"])]
)
def test_hard_swish_is_found_in_every_order(order, opset, wanted):
    draw = Drawing(opset=opset)
    x = draw.input("x", ["batch", 3, 5])
    after, counts = assert_lossless(draw.model(written_out(draw, x, order=order)), only=ONLY)
    assert operators(after) == wanted
    assert counts == {"hard-swish": 1}


@pytest.mark.parametrize("order", ["divide", "scale"])
def test_hard_sigmoid_is_found(order):
    draw = Drawing()
    after, _ = assert_lossless(draw.model(written_out(draw, draw.input("x", ["batch", 9]), order=order)), only=ONLY)
    assert operators(after) == ["HardSigmoid"]


@pytest.mark.parametrize("number", [{"shift": 2.5}, {"high": 5.0}, {"sixth": 6.01}])
def test_other_constants_are_left(number):
    draw = Drawing()
    model = draw.model(written_out(draw, draw.input("x", ["batch", 9]), **number))
    _, counts = assert_lossless(model, only=ONLY)
    assert counts == {}


def test_a_clip_that_somebody_else_reads_is_left():
    draw = Drawing()
    x = draw.input("x", ["batch", 9])
    y = draw.add("Clip", draw.add("Add", x, draw.constant(3.0)), draw.constant(0.0), draw.constant(6.0))
    model = draw.model(draw.add("Mul", x, draw.add("Div", y, draw.constant(6.0))), draw.add("Relu", y))
    _, counts = assert_lossless(model, only=ONLY)
    assert counts == {}


def test_a_bound_that_callers_can_override_is_left():
    draw = Drawing()
    x = draw.input("x", [1, 9])
    high = draw.constant(6.0, overridable=True)
    y = draw.add("Clip", draw.add("Add", x, draw.constant(3.0)), draw.constant(0.0), high)
    model = draw.model(draw.add("Div", y, draw.constant(6.0)))
    _, counts = assert_lossless(model, only=ONLY, feeds=[{"x": np.ones((1, 9), np.float32), high: np.float32(3)}])
    assert counts == {}


def test_the_ends_and_what_is_no_number():
    draw = Drawing()
    model = draw.model(written_out(draw, draw.input("x", [8])))
    x = np.array([-np.inf, np.inf, np.nan, -3, 3, 0, -1e30, 1e30], np.float32)
    _, counts = assert_lossless(model, only=ONLY, feeds=[{"x": x}])
    assert counts == {"hard-swish": 1}
