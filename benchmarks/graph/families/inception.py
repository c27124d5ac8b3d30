"""Inception modules (C. Szegedy et al. 2015, arXiv:1512.00567): convolutions side by side on one tensor."""

from __future__ import annotations

import numpy as np
import onnx
from benchmarks.graph.families.convolutions import classified, convolution, normalized, pictures
from benchmarks.graph.families.drawing import Drawing, Feed
from benchmarks.graph.families.family import Family

_Kernel = int | tuple[int, int]


def _unit(
    drawing: Drawing, x: str, *, channels: tuple[int, int], kernel: _Kernel = 1, stride: int = 1, bias: bool = False
) -> str:
    y = convolution(drawing, x, channels=channels, kernel=kernel, stride=stride, bias=bias)
    return drawing.add("Relu", normalized(drawing, y, channels[1], gain=1.0))


def _module(drawing: Drawing, x: str, *, before: int, width: int) -> str:
    """Four branches of `width` channels each; one of them with its 7 x 7 taken apart."""
    plain = _unit(drawing, x, channels=(before, width))
    three = _unit(drawing, _unit(drawing, x, channels=(before, width)), channels=(width, width), kernel=3)
    apart = _unit(drawing, x, channels=(before, width))
    for kernel in ((1, 7), (7, 1)):
        apart = _unit(drawing, apart, channels=(width, width), kernel=kernel)
    pooled = drawing.add("AveragePool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4, count_include_pad=1)
    pooled = _unit(drawing, pooled, channels=(before, width))
    return drawing.add("Concat", plain, three, apart, pooled, axis=1)


def _draw(small: bool) -> onnx.ModelProto:
    drawing, (side, classes, width, modules) = Drawing(), (32, 10, 8, 2) if small else (224, 1000, 96, 6)
    x = _unit(drawing, "image", channels=(3, width // 2), kernel=3, stride=2)
    x = _unit(drawing, x, channels=(width // 2, width), kernel=3, stride=2, bias=True)
    x = drawing.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    before = width
    for _ in range(modules):
        x, before = _module(drawing, x, before=before, width=width), width * 4
    drawing.name(drawing.add("Softmax", classified(drawing, x, width=before, classes=classes), axis=-1), "scores")
    inputs = {"image": (np.float32, ("N", 3, side, side))}
    return drawing.model("inception", inputs=inputs, outputs={"scores": ("N", classes)})


def _feed(random: np.random.Generator, batch: int, small: bool) -> Feed:
    return pictures(random, batch, 32 if small else 224)


INCEPTION = Family("inception", "Inception-like", _draw, _feed, "top1")
