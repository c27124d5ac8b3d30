"""Sums that are normalized: their biases go into the normalization before, and onnxruntime leaves them apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph.building import Drawing
from graph.oracle import assert_same_answers, operators, optimized

WIDTH = 8
BIAS, DIFFERENCE = ["residual-bias"], ["normalized-difference"]


def normal(draw: Drawing, x: str) -> str:
    return draw.add("LayerNormalization", x, draw.positive(WIDTH), draw.weight(WIDTH), axis=-1)


def linear(
    draw: Drawing, x: str, *, width: int = WIDTH, into: int = WIDTH, bias: float = 1.0, swapped: bool = False
) -> str:
    parts = draw.add("MatMul", x, draw.weight(width, into)), draw.constant(draw.random.uniform(-bias, bias, into))
    return draw.add("Add", *parts[:: -1 if swapped else 1])


def layer(draw: Drawing, x: str, *, bias: float = 1.0, swapped: bool = False, first: bool = False) -> str:
    """The half of an encoder's layer after its attention, normalized last."""
    wide = draw.add("Relu", linear(draw, x, into=2 * WIDTH, swapped=swapped))
    parts = linear(draw, wide, width=2 * WIDTH, bias=bias, swapped=swapped), x
    return normal(draw, draw.add("Add", *parts[:: -1 if first else 1]))


def encoder(
    *, bias: float = 1.0, swapped: bool = False, first: bool = False, free: bool = True, seed: int = 0
) -> onnx.ModelProto:
    draw = Drawing(seed=seed)
    x = normal(draw, draw.input("x", ["N", "S", WIDTH] if free else [2, 3, WIDTH]))
    for _ in range(2):
        x = layer(draw, x, bias=bias, swapped=swapped, first=first)
    return draw.model(x)


def feed(*shape: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(sum(shape)).standard_normal((*shape, WIDTH)).astype(np.float32)}


def held(model: onnx.ModelProto, only: Sequence[str]) -> list[str]:
    """The operators after some passes, whose answers are as before."""
    after, _ = optimized(model, only=only)
    for shape in ((2, 3), (1, 1), (3, 0)):
        assert_same_answers(model, after, feed(*shape))
    return operators(after)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_the_bias_of_a_sum_goes_into_the_normalization_before(swapped: bool, first: bool) -> None:
    found = held(encoder(swapped=swapped, first=first), BIAS)
    assert found.count("Add") == 2 * 2  # of the wide product, and of the sum


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 2.0), st.booleans())
@settings(max_examples=20, deadline=None)
def test_whatever_the_biases_answers_stay(seed: int, bias: float, swapped: bool) -> None:
    model = encoder(bias=bias, swapped=swapped, seed=seed)
    after, counts = optimized(model, only=[*BIAS, *DIFFERENCE])
    assert counts["normalized-difference"] == 2
    assert_same_answers(model, after, feed(2, 3))


def test_a_bias_that_would_drown_what_is_normalized_stays() -> None:
    model = encoder(bias=1e3)
    assert held(model, BIAS) == operators(model)


def test_a_bias_stays_where_something_else_reads_what_is_normalized() -> None:
    draw = Drawing()
    y = normal(draw, draw.input("x", ["N", "S", WIDTH]))
    total = draw.add("Add", linear(draw, draw.add("Relu", y)), y)
    curve = draw.model(normal(draw, total))
    draw = Drawing()
    y = normal(draw, draw.input("x", ["N", "S", WIDTH]))
    output = draw.model(layer(draw, y), y)
    draw = Drawing()
    y = normal(draw, draw.input("x", ["N", "S", WIDTH]))
    bare = draw.model(normal(draw, draw.add("Add", linear(draw, draw.add("MatMul", y, draw.weight(WIDTH, WIDTH))), y)))
    for model in (curve, output, bare):
        assert held(model, BIAS) == operators(model)


def test_onnxruntime_joins_nothing_again_when_it_loads(tmp_path: Path) -> None:
    model = encoder(free=False)
    loaded = {}
    for name, form in (("plain", model), ("final", optimized(model, only=[*BIAS, *DIFFERENCE])[0])):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{name}.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(form.SerializeToString(), options, providers=["CPUExecutionProvider"])
        loaded[name] = operators(onnx.load(tmp_path / f"{name}.onnx"))
    assert "SkipLayerNormalization" in loaded["plain"]  # or this says nothing of the other
    assert "SkipLayerNormalization" not in loaded["final"]


@pytest.mark.parametrize("first", [False, True])
def test_a_product_in_a_normalized_sum_is_subtracted_and_handed_on(first: bool) -> None:
    draw = Drawing()
    x = draw.input("x", ["N", "S", WIDTH])
    parts = (linear(draw, x), x)
    total = draw.add("Add", *parts[:: -1 if first else 1])
    model = draw.model(draw.add("Add", normal(draw, total), total))
    assert held(model, DIFFERENCE) == ["MatMul", "Add", "Sub", "LayerNormalization", "Add"]


def test_a_product_whose_weights_somebody_else_reads_is_not_negated() -> None:
    draw = Drawing()
    x, weight = draw.input("x", ["N", "S", WIDTH]), draw.weight(WIDTH, WIDTH)
    total = draw.add("Add", draw.add("MatMul", x, weight), x)
    shared = draw.model(draw.add("MatMul", normal(draw, total), weight))
    draw = Drawing()
    x = draw.input("x", ["N", "S", WIDTH])
    product = draw.add("MatMul", x, draw.weight(WIDTH, WIDTH))
    read = draw.model(draw.add("Add", normal(draw, draw.add("Add", product, x)), product))
    for model in (shared, read):
        assert held(model, DIFFERENCE) == operators(model)
