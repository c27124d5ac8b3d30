"""ViT-S/16 (A. Dosovitskiy et al. 2021, arXiv:2010.11929) as PyTorch exports `scaled_dot_product_attention`: no mask,
the scale computed from a shape and its root given to both factors; layer normalization as the operator of opset 17.
"""

from __future__ import annotations

import numpy as np
import onnx
from benchmarks.graph.families.convolutions import pictures
from benchmarks.graph.families.drawing import Drawing, Feed
from benchmarks.graph.families.encoder import gelu, reshaped, sizes, split
from benchmarks.graph.families.family import Family, Transformer

_PATCH = 16


def _linear(drawing: Drawing, x: str, *, shape: tuple[int, int]) -> str:
    product = drawing.add("MatMul", x, drawing.normal(*shape, scale=0.5 * shape[0] ** -0.5))
    return drawing.add("Add", drawing.normal(shape[1], scale=0.02), product)


def _normal(drawing: Drawing, x: str, width: int) -> str:
    scale, bias = drawing.normal(width, scale=0.1, offset=1.0), drawing.normal(width, scale=0.02)
    return drawing.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-6)


def _root_of_scale(drawing: Drawing, queries: str) -> str:
    """The fourth root of 1 / size, from the last dimension of the queries."""
    shape = drawing.add("Shape", queries)
    last = drawing.add("Slice", shape, drawing.integers(-1), drawing.integers(2**63 - 1))
    root = drawing.add("Sqrt", drawing.add("Cast", last, to=onnx.TensorProto.FLOAT))
    return drawing.add("Sqrt", drawing.add("Div", drawing.constant([1.0]), root))


def _attention(drawing: Drawing, x: str, *, width: int, heads: int) -> str:
    queries, keys, values = (
        split(drawing, _linear(drawing, x, shape=(width, width)), heads=heads, width=width) for _ in range(3)
    )
    root = _root_of_scale(drawing, queries)
    turned = drawing.add("Transpose", keys, perm=[0, 1, 3, 2])
    scores = drawing.add("MatMul", drawing.add("Mul", queries, root), drawing.add("Mul", turned, root))
    seen = drawing.add("MatMul", drawing.add("Softmax", scores, axis=-1), values)
    together = reshaped(drawing, drawing.add("Transpose", seen, perm=[0, 2, 1, 3]), kept=2, rest=(width,))
    return _linear(drawing, together, shape=(width, width))


def _patches(drawing: Drawing, *, width: int, count: int) -> str:
    """The picture in squares, one vector each, behind one for the class; and where each square was."""
    weights = drawing.normal(width, 3, _PATCH, _PATCH, scale=(3 * _PATCH**2) ** -0.5)
    grid = drawing.add(
        "Conv", "image", weights, drawing.normal(width, scale=0.02), kernel_shape=[_PATCH] * 2, strides=[_PATCH] * 2
    )
    batch = sizes(drawing, "image", 1)
    shape = drawing.add("Concat", *batch, drawing.integers(width), drawing.integers(-1), axis=0)
    squares = drawing.add("Transpose", drawing.add("Reshape", grid, shape), perm=[0, 2, 1])
    wanted = drawing.add("Concat", *batch, drawing.integers(-1), drawing.integers(-1), axis=0)
    ones = drawing.add("ConstantOfShape", drawing.integers(3), value=onnx.numpy_helper.from_array(np.ones(1, np.int64)))
    minus = drawing.add("Mul", ones, drawing.integer(-1))
    wanted = drawing.add("Where", drawing.add("Equal", wanted, minus), ones, wanted)
    first = drawing.add("Expand", drawing.normal(1, 1, width, scale=0.02), wanted)
    return drawing.add(
        "Add", drawing.add("Concat", first, squares, axis=1), drawing.normal(1, count + 1, width, scale=0.2)
    )


def _draw(small: bool) -> onnx.ModelProto:
    drawing, (side, width, layers, heads, classes) = Drawing(), (32, 32, 2, 4, 10) if small else (224, 384, 12, 6, 1000)
    x = _patches(drawing, width=width, count=(side // _PATCH) ** 2)
    for _ in range(layers):
        x = drawing.add("Add", _attention(drawing, _normal(drawing, x, width), width=width, heads=heads), x)
        wide = gelu(drawing, _linear(drawing, _normal(drawing, x, width), shape=(width, width * 4)))
        x = drawing.add("Add", _linear(drawing, wide, shape=(width * 4, width)), x)
    first = drawing.add("Gather", _normal(drawing, x, width), drawing.integer(0), axis=1)
    weights, bias = drawing.normal(classes, width, scale=width**-0.5), drawing.constant(np.zeros(classes))
    drawing.name(drawing.add("Gemm", first, weights, bias, transB=1), "scores")
    inputs = {"image": (np.float32, ("N", 3, side, side))}
    return drawing.model("vit", inputs=inputs, outputs={"scores": ("N", classes)})


def _feed(random: np.random.Generator, batch: int, small: bool) -> Feed:
    return pictures(random, batch, 32 if small else 224)


VIT = Family("vit", "ViT-S/16", _draw, _feed, "top1", transformer=Transformer("vit", (6, 384), (4, 32)))
