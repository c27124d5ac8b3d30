"""MobileNetV3-large (A. Howard et al. 2019, arXiv:1905.02244): depthwise convolutions, HardSwish, squeeze-excite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from benchmarks.graph.families.convolutions import classified, convolution, normalized, pictures
from benchmarks.graph.families.drawing import Drawing, Feed
from benchmarks.graph.families.family import Family


@dataclass(frozen=True, slots=True)
class _Block:
    """A row of the paper's table 1."""

    kernel: int
    inner: int
    out: int
    squeezed: bool
    swish: bool
    stride: int


_WHOLE = (
    _Block(3, 16, 16, False, False, 1),
    _Block(3, 64, 24, False, False, 2),
    _Block(3, 72, 24, False, False, 1),
    _Block(5, 72, 40, True, False, 2),
    _Block(5, 120, 40, True, False, 1),
    _Block(5, 120, 40, True, False, 1),
    _Block(3, 240, 80, False, True, 2),
    _Block(3, 200, 80, False, True, 1),
    _Block(3, 184, 80, False, True, 1),
    _Block(3, 184, 80, False, True, 1),
    _Block(3, 480, 112, True, True, 1),
    _Block(3, 672, 112, True, True, 1),
    _Block(5, 672, 160, True, True, 2),
    _Block(5, 960, 160, True, True, 1),
    _Block(5, 960, 160, True, True, 1),
)
_SMALL = (_Block(3, 16, 16, False, False, 1), _Block(5, 48, 24, True, True, 2), _Block(5, 48, 24, True, True, 1))


def _activated(drawing: Drawing, x: str, swish: bool) -> str:
    return drawing.add("HardSwish" if swish else "Relu", x)


def _squeezed(drawing: Drawing, x: str, width: int) -> str:
    narrow = max(8, (width // 4 + 4) // 8 * 8)
    y = convolution(drawing, drawing.add("GlobalAveragePool", x), channels=(width, narrow), bias=True)
    y = convolution(drawing, drawing.add("Relu", y), channels=(narrow, width), bias=True)
    return drawing.add("Mul", x, drawing.add("HardSigmoid", y, alpha=1 / 6))


def _inverted(drawing: Drawing, x: str, *, before: int, block: _Block) -> str:
    y, inner = x, block.inner
    if inner != before:
        y = normalized(drawing, convolution(drawing, y, channels=(before, inner)), inner)
        y = _activated(drawing, y, block.swish)
    y = convolution(drawing, y, channels=(inner, inner), kernel=block.kernel, stride=block.stride, groups=inner)
    y = _activated(drawing, normalized(drawing, y, inner), block.swish)
    if block.squeezed:
        y = _squeezed(drawing, y, inner)
    y = normalized(drawing, convolution(drawing, y, channels=(inner, block.out)), block.out)
    return drawing.add("Add", x, y) if block.stride == 1 and before == block.out else y


def _draw(small: bool) -> onnx.ModelProto:
    drawing, (side, classes, last) = Drawing(), (32, 10, 64) if small else (224, 1000, 1280)
    x = normalized(drawing, convolution(drawing, "image", channels=(3, 16), kernel=3, stride=2), 16)
    x, width = drawing.add("HardSwish", x), 16
    for block in _SMALL if small else _WHOLE:
        x = _inverted(drawing, x, before=width, block=block)
        width = block.out
    x = normalized(drawing, convolution(drawing, x, channels=(width, 6 * width)), 6 * width)
    x = classified(drawing, drawing.add("HardSwish", x), width=6 * width, classes=last)
    weights, bias = drawing.normal(classes, last, scale=last**-0.5), drawing.constant(np.zeros(classes))
    drawing.name(drawing.add("Gemm", drawing.add("HardSwish", x), weights, bias, transB=1), "scores")
    inputs = {"image": (np.float32, ("N", 3, side, side))}
    return drawing.model("mobilenet", inputs=inputs, outputs={"scores": ("N", classes)})


def _feed(random: np.random.Generator, batch: int, small: bool) -> Feed:
    return pictures(random, batch, 32 if small else 224)


MOBILENET = Family("mobilenet", "MobileNetV3-large", _draw, _feed, "top1")
