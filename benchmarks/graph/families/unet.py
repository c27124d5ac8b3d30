"""U-Net (O. Ronneberger et al. 2015, arXiv:1505.04597), padded, with batch normalization: a mask of full size."""

from __future__ import annotations

import numpy as np
import onnx
from benchmarks.graph.families.convolutions import convolution, normalized, pictures
from benchmarks.graph.families.drawing import Drawing, Feed
from benchmarks.graph.families.family import Family


def _double(drawing: Drawing, x: str, *, channels: tuple[int, int]) -> str:
    before, after = channels
    for wide in (before, after):
        x = normalized(drawing, convolution(drawing, x, channels=(wide, after), kernel=3, bias=True), after)
        x = drawing.add("Relu", x)
    return x


def _up(drawing: Drawing, x: str, *, channels: tuple[int, int]) -> str:
    before, after = channels
    weights, bias = drawing.normal(before, after, 2, 2, scale=(2 / before) ** 0.5), drawing.normal(after, scale=0.1)
    return drawing.add("ConvTranspose", x, weights, bias, kernel_shape=[2, 2], strides=[2, 2])


def _draw(small: bool) -> onnx.ModelProto:
    drawing, (side, width, levels) = Drawing(), (32, 4, 2) if small else (128, 32, 4)
    x, before, kept = "image", 3, []
    for level in range(levels):
        x = _double(drawing, x, channels=(before, width << level))
        kept.append(x)
        x, before = drawing.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), width << level
    x = _double(drawing, x, channels=(before, before * 2))
    for level in reversed(range(levels)):
        wide = width << level
        x = drawing.add("Concat", kept[level], _up(drawing, x, channels=(wide * 2, wide)), axis=1)
        x = _double(drawing, x, channels=(wide * 2, wide))
    mask = convolution(drawing, x, channels=(width, 2), bias=True)
    drawing.name(drawing.add("Softmax", mask, axis=1), "mask")
    inputs = {"image": (np.float32, ("N", 3, side, side))}
    return drawing.model("unet", inputs=inputs, outputs={"mask": ("N", 2, side, side)})


def _feed(random: np.random.Generator, batch: int, small: bool) -> Feed:
    return pictures(random, batch, 32 if small else 128)


UNET = Family("unet", "U-Net, 128 x 128", _draw, _feed, "overlap")
