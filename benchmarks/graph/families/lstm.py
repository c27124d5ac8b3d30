"""A classifier of sentences by two bidirectional LSTM layers, their initial states made in the graph."""

from __future__ import annotations

import numpy as np
import onnx
from benchmarks.graph.families.drawing import Drawing, Feed
from benchmarks.graph.families.encoder import sizes
from benchmarks.graph.families.family import Family


def _zeros(drawing: Drawing, x: str, hidden: int) -> str:
    """[2, N, hidden], with N from [S, N, width]."""
    batch = sizes(drawing, x, 2)[1]
    shape = drawing.add("Concat", drawing.integers(2), batch, drawing.integers(hidden), axis=0)
    return drawing.add("ConstantOfShape", shape, value=onnx.numpy_helper.from_array(np.zeros(1, np.float32)))


def _layer(drawing: Drawing, x: str, *, width: int, hidden: int) -> str:
    spread = hidden**-0.5
    weights = [drawing.normal(2, 4 * hidden, taken, scale=spread) for taken in (width, hidden)]
    bias = drawing.normal(2, 8 * hidden, scale=0.1)
    states = [_zeros(drawing, x, hidden) for _ in range(2)]
    y, _, _ = drawing.several(3, "LSTM", x, *weights, bias, "", *states, hidden_size=hidden, direction="bidirectional")
    # [S, 2, N, hidden] to [S, N, 2 hidden]
    turned = drawing.add("Transpose", y, perm=[0, 2, 1, 3])
    return drawing.add("Reshape", turned, drawing.integers(0, 0, -1))


def _draw(small: bool) -> onnx.ModelProto:
    drawing, (vocabulary, width, hidden, classes) = Drawing(), (50, 8, 8, 3) if small else (20_000, 256, 256, 20)
    x = drawing.add("Gather", drawing.normal(vocabulary, width, scale=0.5), "tokens")
    x = drawing.add("Transpose", x, perm=[1, 0, 2])
    for taken in (width, 2 * hidden):
        x = _layer(drawing, x, width=taken, hidden=hidden)
    mean = drawing.add("ReduceMean", x, axes=[0], keepdims=0)
    product = drawing.add("MatMul", mean, drawing.normal(2 * hidden, classes, scale=0.2))
    drawing.name(drawing.add("Add", product, drawing.normal(classes, scale=0.1)), "scores")
    return drawing.model("lstm", inputs={"tokens": (np.int64, ("N", "S"))}, outputs={"scores": ("N", classes)})


def _feed(random: np.random.Generator, batch: int, small: bool) -> Feed:
    return {"tokens": random.integers(0, 50 if small else 20_000, (batch, 6 if small else 64))}


LSTM = Family("lstm", "LSTM, 2 x 256 both ways, 64 tokens", _draw, _feed, "top1")
