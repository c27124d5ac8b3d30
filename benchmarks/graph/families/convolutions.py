"""Blocks that convolutional families share: a convolution with its normalization, and what stands behind it."""

from __future__ import annotations

import numpy as np
from benchmarks.graph.families.drawing import Drawing, Feed


def convolution(
    drawing: Drawing,
    x: str,
    *,
    channels: tuple[int, int],
    kernel: int | tuple[int, int] = 1,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> str:
    """A convolution that keeps the size but for its stride; `channels` in and out; weights after K. He et al. 2015."""
    before, after = channels
    high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
    spread = (2 / (before // groups * high * wide)) ** 0.5
    weights = [drawing.normal(after, before // groups, high, wide, scale=spread)]
    if bias:
        weights.append(drawing.normal(after, scale=0.1))
    pads = [high // 2, wide // 2] * 2
    return drawing.add(
        "Conv", x, *weights, kernel_shape=[high, wide], strides=[stride] * 2, pads=pads, group=groups, dilations=[1, 1]
    )


def normalized(drawing: Drawing, x: str, channels: int, *, gain: float = 0.75) -> str:
    """Batch normalization, with statistics as training leaves them: near one and zero, no two alike.

    The mean scale is `gain`: below one where sums of many layers would grow.
    """
    scale, bias = drawing.uniform(channels, low=gain - 0.25, high=gain + 0.25), drawing.normal(channels, scale=0.1)
    mean, variance = drawing.normal(channels, scale=0.1), drawing.uniform(channels, low=0.8, high=1.2)
    return drawing.add("BatchNormalization", x, scale, bias, mean, variance, epsilon=1e-5)


def classified(drawing: Drawing, x: str, *, width: int, classes: int) -> str:
    """Means over the picture, then a linear layer: scores before the softmax."""
    x = drawing.add("Flatten", drawing.add("GlobalAveragePool", x), axis=1)
    weights = drawing.normal(classes, width, scale=width**-0.5)
    return drawing.add("Gemm", x, weights, drawing.constant(np.zeros(classes)), transB=1)


def pictures(random: np.random.Generator, batch: int, side: int) -> Feed:
    """Normalized pictures: smooth, as neighbours in a photograph are alike, with noise on top."""
    coarse = random.standard_normal((batch, 3, side // 8, side // 8), np.float32)
    smooth = coarse.repeat(8, axis=2).repeat(8, axis=3)
    return {"image": smooth + np.float32(0.3) * random.standard_normal(smooth.shape, np.float32)}
