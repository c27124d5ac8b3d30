"""The last step, for the file alone: curves go into convolutions, and a sigmoid into the product with its argument."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from graph.building import Drawing
from graph.oracle import assert_same_answers, operators, optimized

CURVES: list[tuple[str, tuple[float, ...], dict[str, Any]]] = [
    ("Relu", (), {}),
    ("Sigmoid", (), {}),
    ("Tanh", (), {}),
    ("LeakyRelu", (), {}),
    ("LeakyRelu", (), {"alpha": 0.3}),
    ("HardSigmoid", (), {}),
    ("HardSigmoid", (), {"alpha": 0.3, "beta": 0.1}),
    ("Clip", (0.0, 6.0), {}),
    ("Clip", (-0.5, 0.25), {}),
]
ODD = (0.0, -0.0, 1e-40, -200.0, 200.0, 3e38, -3e38, np.inf, -np.inf, np.nan)


def convolved(curve: str, bounds: tuple[float, ...] = (), **attributes: Any) -> onnx.ModelProto:
    draw = Drawing()
    y = draw.add("Conv", draw.input("x", ["N", 2, 5, 5]), draw.weight(3, 2, 3, 3), draw.weight(3), pads=[1, 1, 1, 1])
    return draw.model(draw.add(curve, y, *(draw.constant(bound) for bound in bounds), **attributes))


def images(batch: int, *, value: float | None = None) -> dict[str, np.ndarray]:
    x = np.random.default_rng(batch).standard_normal((batch, 2, 5, 5)).astype(np.float32)
    if value is not None:
        x[:, :, 2, 2] = value
    return {"x": x}


@pytest.mark.parametrize(("curve", "bounds", "attributes"), CURVES)
def test_a_curve_goes_into_the_convolution_before_it(
    curve: str, bounds: tuple[float, ...], attributes: dict[str, Any]
) -> None:
    model = convolved(curve, bounds, **attributes)
    after, _ = optimized(model, final=True)
    assert operators(after) == ["FusedConv"]
    for batch in (0, 1, 3):
        assert_same_answers(model, after, images(batch))
    for value in ODD:
        assert_same_answers(model, after, images(1, value=value))


@pytest.mark.parametrize("curve", ["Relu", "Sigmoid"])
@pytest.mark.parametrize("rank", [1, 3])
def test_convolutions_of_other_ranks_take_their_curves_along(curve: str, rank: int) -> None:
    draw = Drawing()
    y = draw.add("Conv", draw.input("x", ["N", 2, *[5] * rank]), draw.weight(4, 1, *[3] * rank), group=2)
    model = draw.model(draw.add(curve, y))
    after, _ = optimized(model, final=True)
    assert operators(after) == ["FusedConv"]
    x = np.random.default_rng(0).standard_normal((2, 2, *[5] * rank)).astype(np.float32)
    assert_same_answers(model, after, {"x": x})


def test_a_curve_stays_where_it_would_be_another_or_somebody_reads_what_is_before_it() -> None:
    draw = Drawing()
    y = draw.add("Conv", draw.input("x", ["N", 2, 5, 5]), draw.weight(3, 2, 3, 3))
    shared = draw.model(draw.add("Relu", y), draw.add("Tanh", y))
    output = draw.model(draw.add("Relu", y), y)
    for model in (shared, output, convolved("Clip", (1.0, -1.0)), convolved("Clip", (0.0,)), convolved("Elu")):
        after, _ = optimized(model, final=True)
        assert "FusedConv" not in operators(after)
        assert_same_answers(model, after, images(2))


def test_a_sigmoid_that_its_own_argument_is_multiplied_with_is_one_operator() -> None:
    for order in (0, 1):
        draw = Drawing()
        x = draw.input("x", ["N", 4])
        pair = (x, draw.add("Sigmoid", x))
        model = draw.model(draw.add("Mul", *pair[:: 1 if order else -1]))
        after, _ = optimized(model, final=True)
        assert operators(after) == ["QuickGelu"]
        odd = np.array(ODD[:8], np.float32).reshape(2, 4)
        for values in (odd, odd[:0], np.full((1, 4), np.nan, np.float32), np.full((1, 4), -np.inf, np.float32)):
            assert_same_answers(model, after, {"x": values})


@pytest.mark.parametrize("squared", [False, True])
def test_a_sigmoid_that_something_else_is_multiplied_with_stays(squared: bool) -> None:
    draw = Drawing()
    x, other = draw.input("x", ["N", 4]), draw.input("other", ["N", 4])
    curve = draw.add("Sigmoid", x)
    model = draw.model(draw.add("Mul", curve, curve if squared else other))
    assert operators(optimized(model, final=True)[0]) == ["Sigmoid", "Mul"]


def test_nothing_final_is_done_unless_it_is_asked_for() -> None:
    model = convolved("Relu")
    assert operators(optimized(model)[0]) == ["Conv", "Relu"]
    assert operators(optimized(model, only=["conv-activation"])[0]) == ["FusedConv"]
    assert operators(optimized(model, only=["dead-code"], final=True)[0]) == ["FusedConv"]
