"""Attention with a causal mask and a cache of keys and values, as decoders generate with."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graph.building import Drawing
from graph.oracle import Feed
from graph.test_transformers import HEADS, SIZE, WIDTH, assert_same, integers, linear, mixed, parted, random

LOWEST = float(np.finfo(np.float32).min)
POSITIONS = 32


def length(draw: Drawing, x: str, axis: int) -> str:
    picked = draw.add("Gather", draw.add("Shape", x), draw.constant(axis, np.int64), axis=0)
    return draw.add("Unsqueeze", picked, integers(draw, 0))


def causal(draw: Drawing, keys: str, queries: str) -> str:
    """Rows and columns of a triangle, cut out as long as the keys are."""
    triangle = draw.constant(np.tri(POSITIONS)[None, None], np.bool_)
    every, own = length(draw, keys, 2), length(draw, queries, 2)
    rows = draw.add("Slice", triangle, draw.add("Sub", every, own), every, integers(draw, 2))
    return draw.add("Slice", rows, integers(draw, 0), every, integers(draw, 3))


def decoder(*, low: float = LOWEST, padding: bool = False, packed: bool = True) -> onnx.ModelProto:
    """One layer of attention in the manner of GPT-2."""
    draw = Drawing()
    x = draw.input("x", ["N", "S", WIDTH])
    past = [draw.input(name, ["N", HEADS, "P", SIZE]) for name in ("past_key", "past_value")]
    if packed:
        parts = draw.several(3, "Split", linear(draw, x, into=3 * WIDTH), integers(draw, *[WIDTH] * 3), axis=2)
    else:
        parts = [linear(draw, x) for _ in range(3)]
    queries, keys, values = (parted(draw, part) for part in parts)
    keys, values = (draw.add("Concat", old, new, axis=2) for old, new in zip(past, (keys, values), strict=True))
    scores = draw.add("MatMul", queries, draw.add("Transpose", keys, perm=[0, 1, 3, 2]))
    scores = draw.add("Div", scores, draw.constant(np.sqrt(SIZE)))
    scores = draw.add("Where", causal(draw, keys, queries), scores, draw.constant(low))
    if padding:
        scores = draw.add("Add", scores, draw.input("mask", ["N", 1, 1, "P+S"]))
    return draw.model(mixed(draw, scores, values), keys, values)


def step(*, batch: int = 2, new: int = 3, past: int = 4, padding: bool = False) -> Feed:
    feed = {
        "x": random(batch, new, WIDTH),
        "past_key": random(batch, HEADS, past, SIZE),
        "past_value": random(batch, HEADS, past, SIZE, scale=2.0),
    }
    if padding:
        mask = np.zeros((batch, 1, 1, past + new), np.float32)
        mask[0, ..., :2] = LOWEST
        mask[1] = LOWEST
        feed["mask"] = mask
    return feed


STEPS = [step(), step(new=1), step(past=0), step(batch=1, new=1, past=0)]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("low", [LOWEST, -np.inf])
def test_causal_attention_with_a_cache_is_one_operator_that_extends_the_cache(low: float, packed: bool) -> None:
    found, _ = assert_same(decoder(low=low, packed=packed), STEPS)
    assert found.count("MultiHeadAttention") == 1
    assert not {"Softmax", "Transpose", "Div"} & set(found)


def test_a_padding_mask_is_added_to_the_causal_one_also_where_all_is_masked() -> None:
    found, _ = assert_same(decoder(padding=True), [step(padding=True), step(padding=True, new=1)])
    assert found.count("MultiHeadAttention") == 1
    assert "Softmax" not in found


def test_a_number_that_a_score_could_reach_keeps_causal_attention_apart() -> None:
    feeds = [*STEPS, {**step(), "past_key": random(2, HEADS, 4, SIZE, scale=1e5)}]
    found, _ = assert_same(decoder(low=-10_000.0), feeds)
    assert "Softmax" in found
