"""Gemm, and MatMul with Add, take in the BatchNormalization that follows them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from graph import oracle
from graph.building import Drawing
from graph.oracle import FOLDING, operators, optimized

assert_lossless = partial(oracle.assert_lossless, only=FOLDING)


@pytest.mark.parametrize("bias", [None, (), (1,), (6,), (1, 6), (3, 1), (3, 6), (1, 1)])
@pytest.mark.parametrize("attributes", [{}, {"transB": 1, "alpha": 0.5}, {"transA": 1, "beta": 2.0}, {"beta": 0.0}])
def test_a_batchnorm_after_a_gemm_disappears(bias, attributes):
    draw = Drawing()
    x = draw.input("x", [4, 3] if attributes.get("transA") else [3, 4])
    weight = draw.weight(6, 4) if attributes.get("transB") else draw.weight(4, 6)
    inputs = [x, weight] + ([] if bias is None else [draw.weight(*bias)])
    after, counts = assert_lossless(draw.model(draw.batchnorm(draw.add("Gemm", *inputs, **attributes), 6)))
    assert operators(after) == ["Gemm"]
    assert counts == {"gemm-batchnorm": 1}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("opset", [7, 9, 11, 14, 21])
def test_it_does_so_for_every_batch_type_and_opset(dtype, opset):
    draw = Drawing(opset=opset)
    y = draw.add(
        "Gemm", draw.input("x", ["batch", 4], dtype), draw.weight(4, 6, dtype=dtype), draw.weight(6, dtype=dtype)
    )
    after, _ = assert_lossless(draw.model(draw.batchnorm(y, 6, dtype=dtype)))
    assert operators(after) == ["Gemm"]


def test_a_gemm_whose_bias_is_computed_stays():
    draw = Drawing()
    y = draw.add("Gemm", draw.input("x", ["batch", 4]), draw.weight(4, 6), draw.input("bias", [6]))
    _, counts = assert_lossless(draw.model(draw.batchnorm(y, 6)))
    assert counts == {}


def test_a_gemm_whose_statistics_are_those_of_the_batch_stays():
    draw = Drawing()
    y = draw.add("Gemm", draw.input("x", [5, 4]), draw.weight(4, 6))
    parts = [draw.positive(6), draw.weight(6), draw.weight(6), draw.positive(6)]
    z, _, _ = draw.several(3, "BatchNormalization", y, *parts, training_mode=1)
    after, counts = optimized(draw.model(z), only=FOLDING)
    assert counts == {}
    assert operators(after) == ["Gemm", "BatchNormalization"]


@pytest.mark.parametrize("operator", [None, "Add", "Sub"])
@pytest.mark.parametrize("shape", [(6,), (1, 6), (1,), ()])
@pytest.mark.parametrize("first", [True, False])
def test_matmul_add_and_batchnorm_become_one_gemm(operator, shape, first):
    draw = Drawing()
    y = draw.add("MatMul", draw.input("x", ["batch", 4]), draw.weight(4, 6))
    if operator is not None:
        operands = [y, draw.weight(*shape)]
        y = draw.add(operator, *(operands if first else operands[::-1]))
    after, counts = assert_lossless(draw.model(draw.batchnorm(y, 6)))
    assert operators(after) == ["Gemm"]
    assert counts == {"matmul-add-batchnorm": 1}


@pytest.mark.parametrize("sizes", [[2, 6, 4], [2, 3, 6, 4], [4]])
def test_only_of_a_matrix_the_channels_are_columns(sizes):
    draw = Drawing()
    y = draw.add("MatMul", draw.input("x", sizes), draw.weight(4, 6))
    if len(sizes) == 1:
        y = draw.add("Reshape", y, draw.constant([1, 6], np.int64))
    _, counts = assert_lossless(
        draw.model(draw.batchnorm(y, 3 if len(sizes) == 4 else 6)), only=["matmul-add-batchnorm"]
    )
    assert counts == {}


def test_a_bias_per_row_stays():
    draw = Drawing()
    y = draw.add("Add", draw.add("MatMul", draw.input("x", [6, 4]), draw.weight(4, 6)), draw.weight(6, 1))
    _, counts = assert_lossless(draw.model(draw.batchnorm(y, 6)), only=["matmul-add-batchnorm"])
    assert counts == {}


def test_an_input_of_unknown_rank_is_left():
    draw = Drawing()
    x = draw.add("Reshape", draw.input("x", ["size"]), draw.input("shape", ["rank"], np.int64))
    y = draw.batchnorm(draw.add("MatMul", x, draw.weight(4, 6)), 6)
    model = draw.model(draw.add("Reshape", y, draw.constant([-1], np.int64)))
    x = np.random.default_rng(0).standard_normal(48).astype(np.float32)
    feeds = [{"x": x, "shape": np.array(shape)} for shape in ((12, 4), (2, 6, 4))]
    _, counts = assert_lossless(model, feeds=feeds, only=["matmul-add-batchnorm"])
    assert counts == {}


def test_a_bias_that_widens_a_single_column_stays():
    draw = Drawing()
    y = draw.add("Add", draw.add("MatMul", draw.input("x", ["batch", 4]), draw.weight(4, 1)), draw.weight(6))
    _, counts = assert_lossless(draw.model(draw.batchnorm(y, 6)))
    assert counts == {}


@pytest.mark.parametrize("which", ["result", "sum"])
def test_a_product_with_another_reader_stays(which):
    draw = Drawing()
    y = draw.add("MatMul", draw.input("x", ["batch", 4]), draw.weight(4, 6))
    z = draw.add("Add", y, draw.weight(6))
    model = draw.model(draw.batchnorm(z, 6), draw.add("Relu", y if which == "result" else z))
    _, counts = assert_lossless(model, only=["matmul-add-batchnorm"])
    assert counts == {}


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_infinities_and_nan_pass_through_as_before(value):
    draw = Drawing()
    y = draw.add("Add", draw.add("MatMul", draw.input("x", [2, 4]), draw.weight(4, 6)), draw.weight(6))
    x = np.ones((2, 4), np.float32)
    x[0, 1] = value
    assert_lossless(draw.model(draw.batchnorm(y, 6)), feeds=[{"x": x}])
