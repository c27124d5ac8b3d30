"""A detector in the manner of YOLOv8n: SiLU as Sigmoid and Mul, split stages, pooled pyramid, Resize, Concat."""

from __future__ import annotations

import numpy as np
import onnx
from benchmarks.graph.families.convolutions import convolution, normalized, pictures
from benchmarks.graph.families.drawing import Drawing, Feed
from benchmarks.graph.families.family import Family

_BOX = 4


def _silu(drawing: Drawing, x: str, *, channels: tuple[int, int], kernel: int = 1, stride: int = 1) -> str:
    y = convolution(drawing, x, channels=channels, kernel=kernel, stride=stride)
    y = normalized(drawing, y, channels[1])
    return drawing.add("Mul", y, drawing.add("Sigmoid", y))


def _stage(drawing: Drawing, x: str, *, channels: tuple[int, int], blocks: int, shortcut: bool) -> str:
    """Half of the channels pass by; the other half goes through the blocks, and every step of it is kept."""
    before, after = channels
    half = after // 2
    x = _silu(drawing, x, channels=(before, after))
    parts = drawing.several(2, "Split", x, drawing.integers(half, half), axis=1)
    for _ in range(blocks):
        y = _silu(drawing, parts[-1], channels=(half, half), kernel=3)
        y = _silu(drawing, y, channels=(half, half), kernel=3)
        parts.append(drawing.add("Add", parts[-1], y) if shortcut else y)
    return _silu(drawing, drawing.add("Concat", *parts, axis=1), channels=(half * len(parts), after))


def _pyramid(drawing: Drawing, x: str, width: int) -> str:
    half = width // 2
    parts = [_silu(drawing, x, channels=(width, half))]
    for _ in range(3):
        parts.append(drawing.add("MaxPool", parts[-1], kernel_shape=[5, 5], strides=[1, 1], pads=[2] * 4))
    return _silu(drawing, drawing.add("Concat", *parts, axis=1), channels=(half * 4, width))


def _doubled(drawing: Drawing, x: str) -> str:
    scales = drawing.constant([1, 1, 2, 2])
    return drawing.add(
        "Resize", x, "", scales, mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"
    )


def _head(drawing: Drawing, x: str, *, width: int, classes: int) -> str:
    """Boxes and scores of every place: [N, 4 + classes, places]."""
    parts = []
    for out in (_BOX, classes):
        y = _silu(drawing, x, channels=(width, width), kernel=3)
        y = _silu(drawing, y, channels=(width, width), kernel=3)
        parts.append(convolution(drawing, y, channels=(width, out), bias=True))
    places = drawing.add("Concat", *parts, axis=1)
    return drawing.add("Reshape", places, drawing.integers(0, _BOX + classes, -1))


def _draw(small: bool) -> onnx.ModelProto:
    drawing, (side, classes, w) = Drawing(), (64, 5, 4) if small else (320, 80, 16)
    blocks = 1 if small else 2
    x = _silu(drawing, "image", channels=(3, w), kernel=3, stride=2)
    x, kept, width = _silu(drawing, x, channels=(w, w * 2), kernel=3, stride=2), [], w * 2
    for number, out in enumerate((w * 2, w * 4, w * 8, w * 16)):
        if number:
            x = _silu(drawing, x, channels=(width, out), kernel=3, stride=2)
        x, width = _stage(drawing, x, channels=(out, out), blocks=blocks if 0 < number < 3 else 1, shortcut=True), out
        kept.append(x)
    deep = _pyramid(drawing, kept[3], w * 16)
    middle = drawing.add("Concat", _doubled(drawing, deep), kept[2], axis=1)
    middle = _stage(drawing, middle, channels=(w * 24, w * 8), blocks=1, shortcut=False)
    fine = drawing.add("Concat", _doubled(drawing, middle), kept[1], axis=1)
    fine = _stage(drawing, fine, channels=(w * 12, w * 4), blocks=1, shortcut=False)
    down = _silu(drawing, fine, channels=(w * 4, w * 4), kernel=3, stride=2)
    coarse = _stage(
        drawing, drawing.add("Concat", down, middle, axis=1), channels=(w * 12, w * 8), blocks=1, shortcut=False
    )
    heads = [_head(drawing, x, width=wide, classes=classes) for x, wide in ((fine, w * 4), (coarse, w * 8))]
    every = drawing.add("Concat", *heads, axis=2)
    boxes, scores = drawing.several(2, "Split", every, drawing.integers(_BOX, classes), axis=1)
    boxes = drawing.add("Mul", boxes, drawing.constant(8.0))
    drawing.name(drawing.add("Concat", boxes, drawing.add("Sigmoid", scores), axis=1), "found")
    inputs = {"image": (np.float32, ("N", 3, side, side))}
    places = (side // 8) ** 2 + (side // 16) ** 2
    return drawing.model("yolo", inputs=inputs, outputs={"found": ("N", _BOX + classes, places)})


def _feed(random: np.random.Generator, batch: int, small: bool) -> Feed:
    return pictures(random, batch, 64 if small else 320)


YOLO = Family("yolo", "YOLO-like, 320 x 320", _draw, _feed, "cosine")
