"""A decoder in the manner of GPT-2 (A. Radford et al. 2019) with its keys and values kept: one step of generation.

Queries, keys and values come from one Gemm and are split; the causal mask is sliced out of a triangle; GELU is the
approximation by tanh.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from benchmarks.graph.families.drawing import Drawing, Feed, Shape
from benchmarks.graph.families.encoder import normal, reshaped, sizes, split
from benchmarks.graph.families.family import Family, Transformer


@dataclass(frozen=True, slots=True)
class _Size:
    layers: int
    width: int
    heads: int
    vocabulary: int
    positions: int
    past: int


_WHOLE = _Size(layers=6, width=768, heads=12, vocabulary=16_384, positions=1024, past=127)
_SMALL = _Size(layers=2, width=32, heads=4, vocabulary=50, positions=32, past=7)


def _layer_norm(drawing: Drawing, x: str, width: int) -> str:
    random = np.random.default_rng(width)
    scale, bias = (random.standard_normal((2, width), np.float32) * np.float32(0.05)).astype(np.float32)
    return normal(drawing, x, scale=scale + 1, bias=bias, epsilon=1e-5)


def _gemm(drawing: Drawing, x: str, *, shape: tuple[int, int]) -> str:
    """A linear layer as the published model has it: rows of all sentences together, and apart again."""
    flat = drawing.add("Reshape", x, drawing.integers(-1, shape[0]))
    product = drawing.add("Gemm", flat, drawing.normal(*shape, scale=0.02), drawing.normal(shape[1], scale=0.02))
    parts = [*sizes(drawing, x, 2), drawing.integers(shape[1])]
    return drawing.add("Reshape", product, drawing.add("Concat", *parts, axis=0))


def _gelu(drawing: Drawing, x: str) -> str:
    """The approximation: x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))."""
    cubed = drawing.add("Mul", drawing.add("Pow", x, drawing.constant(3.0)), drawing.constant(0.044715))
    inner = drawing.add("Mul", drawing.add("Add", x, cubed), drawing.constant((2 / np.pi) ** 0.5))
    tanh = drawing.add("Add", drawing.add("Tanh", inner), drawing.constant(1.0))
    return drawing.add("Mul", drawing.add("Mul", x, drawing.constant(0.5)), tanh)


def _length(drawing: Drawing, x: str, axis: int) -> str:
    gathered = drawing.add("Gather", drawing.add("Shape", x), drawing.integer(axis), axis=0)
    return drawing.add("Unsqueeze", gathered, drawing.integers(0))


def _attention(drawing: Drawing, x: str, *, layer: int, size: _Size, triangle: str) -> str:
    width, heads = size.width, size.heads
    joined = _gemm(drawing, x, shape=(width, 3 * width))
    parts = drawing.several(3, "Split", joined, drawing.integers(width, width, width), axis=2)
    queries, keys, values = (split(drawing, part, heads=heads, width=width) for part in parts)
    keys = drawing.name(drawing.add("Concat", f"past_key_{layer}", keys, axis=2), f"present_key_{layer}")
    values = drawing.name(drawing.add("Concat", f"past_value_{layer}", values, axis=2), f"present_value_{layer}")
    scores = drawing.add("MatMul", queries, drawing.add("Transpose", keys, perm=[0, 1, 3, 2]))
    scores = drawing.add("Div", scores, drawing.constant((width // heads) ** 0.5))
    every, own = _length(drawing, keys, 2), _length(drawing, queries, 2)
    rows = drawing.add("Slice", triangle, drawing.add("Sub", every, own), every, drawing.integers(2))
    seen = drawing.add("Slice", rows, drawing.integers(0), every, drawing.integers(3))
    scores = drawing.add("Where", seen, scores, drawing.constant(-10_000.0))
    heard = drawing.add("MatMul", drawing.add("Softmax", scores, axis=-1), values)
    together = reshaped(drawing, drawing.add("Transpose", heard, perm=[0, 2, 1, 3]), kept=2, rest=(width,))
    return _gemm(drawing, together, shape=(width, width))


def _draw(small: bool) -> onnx.ModelProto:
    drawing, size = Drawing(), _SMALL if small else _WHOLE
    width, heads = size.width, size.heads
    triangle = drawing.constant(np.tri(size.positions)[None, None], np.bool_)
    words = drawing.normal(size.vocabulary, width, scale=0.1)
    place = drawing.add("Gather", drawing.normal(size.positions, width, scale=0.02), "position_ids")
    x = drawing.add("Add", drawing.add("Gather", words, "input_ids"), place)
    for layer in range(size.layers):
        y = _attention(drawing, _layer_norm(drawing, x, width), layer=layer, size=size, triangle=triangle)
        x = drawing.add("Add", x, y)
        wide = _gelu(drawing, _gemm(drawing, _layer_norm(drawing, x, width), shape=(width, 4 * width)))
        x = drawing.add("Add", x, _gemm(drawing, wide, shape=(4 * width, width)))
    x = _layer_norm(drawing, x, width)
    drawing.name(drawing.add("MatMul", x, drawing.normal(width, size.vocabulary, scale=0.1)), "logits")
    kept: Shape = ("N", heads, "P", width // heads)
    names = [f"{part}_{layer}" for layer in range(size.layers) for part in ("key", "value")]
    inputs: dict[str, tuple[type, Shape]] = dict.fromkeys(("input_ids", "position_ids"), (np.int64, ("N", "S")))
    inputs |= {f"past_{name}": (np.float32, kept) for name in names}
    outputs: dict[str, Shape] = {"logits": ("N", "S", size.vocabulary)}
    outputs |= {f"present_{name}": ("N", heads, "P+S", width // heads) for name in names}
    return drawing.model("gpt2", inputs=inputs, outputs=outputs)


def _feed(random: np.random.Generator, batch: int, small: bool) -> Feed:
    size = _SMALL if small else _WHOLE
    shape = (batch, size.heads, size.past, size.width // size.heads)
    names = [f"past_{part}_{layer}" for layer in range(size.layers) for part in ("key", "value")]
    past = {name: random.standard_normal(shape, np.float32) * np.float32(0.5) for name in names}
    ids = random.integers(0, size.vocabulary, (batch, 1))
    return {"input_ids": ids, "position_ids": np.full((batch, 1), size.past), **past}


GPT2 = Family(
    "gpt2", "GPT-2-like, one token after 127", _draw, _feed, "top1", transformer=Transformer("gpt2", (12, 768), (4, 32))
)
