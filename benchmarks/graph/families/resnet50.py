"""ResNet50 (K. He et al. 2016, arXiv:1512.03385; the stride in the 3x3 convolution as everyone has it now)."""

from __future__ import annotations

import numpy as np
import onnx
from benchmarks.graph.families.convolutions import classified, convolution, normalized, pictures
from benchmarks.graph.families.drawing import Drawing, Feed
from benchmarks.graph.families.family import Family

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
_SMALL = ((8, 1, 1), (16, 2, 2))


def _bottleneck(drawing: Drawing, x: str, *, channels: tuple[int, int], stride: int, projected: bool) -> str:
    before, inner = channels
    after = inner * 4
    y = drawing.add("Relu", normalized(drawing, convolution(drawing, x, channels=(before, inner)), inner))
    y = convolution(drawing, y, channels=(inner, inner), kernel=3, stride=stride)
    y = drawing.add("Relu", normalized(drawing, y, inner))
    y = normalized(drawing, convolution(drawing, y, channels=(inner, after)), after)
    if projected:
        x = normalized(drawing, convolution(drawing, x, channels=(before, after), stride=stride), after)
    return drawing.add("Relu", drawing.add("Add", y, x))


def _draw(small: bool) -> onnx.ModelProto:
    drawing, side, classes = Drawing(), *((32, 10) if small else (224, 1000))
    width = 16 if small else 64
    x = normalized(drawing, convolution(drawing, "image", channels=(3, width), kernel=7, stride=2), width)
    x = drawing.add("MaxPool", drawing.add("Relu", x), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for inner, blocks, stride in _SMALL if small else _STAGES:
        for block in range(blocks):
            first = block == 0
            step = stride if first else 1
            x = _bottleneck(drawing, x, channels=(width, inner), stride=step, projected=first)
            width = inner * 4
    drawing.name(drawing.add("Softmax", classified(drawing, x, width=width, classes=classes), axis=-1), "scores")
    inputs = {"image": (np.float32, ("N", 3, side, side))}
    return drawing.model("resnet50", inputs=inputs, outputs={"scores": ("N", classes)})


def _feed(random: np.random.Generator, batch: int, small: bool) -> Feed:
    return pictures(random, batch, 32 if small else 224)


RESNET50 = Family("resnet50", "ResNet50", _draw, _feed, "top1", batches=(1, 16))
