"""A small model for every pattern that onnxruntime leaves as it is: what rewriting it alone gains.

A pass rewrites most of them. What is left are operators on single elements, which no kernel of onnxruntime's runs
together, nor with the product before them where that has three dimensions; an engine that generates code may, so these
rows are measured with such a one where it is installed.

Sizes are those of layers in real networks, so that what is gained is neither hidden by the rest nor made of overhead.
All inputs have fixed sizes, in FLOAT unless the model says otherwise.

There is no row for ``Conv -> SiLU``: onnxruntime runs the curve as one QuickGelu, and what could take its place is
slower by measurement, which are Sigmoid and Mul in the layout of the Conv (1.03 to 1.15 of it) and OpenVINO (1.07 and
more, for 16 to 128 channels at 28 x 28 to 160 x 160, and for depthwise Convs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx
from benchmarks.graph.families.drawing import Drawing, Shape

from openclaw.execute.engines import OPENVINO


@dataclass(frozen=True, slots=True)
class Row:
    """One pattern.

    Attributes:
        name: for tables.
        pattern: what the exported graph has.
        passes: names of the passes that rewrite it; the speculative ones among them must be asked for.
        build: the model.
        engines: beside onnxruntime's own kernels, that may close it.
    """

    name: str
    pattern: str
    passes: tuple[str, ...]
    build: Callable[[], onnx.ModelProto]
    engines: tuple[str, ...] = ()


def _batchnorm(draw: Drawing, x: str, channels: int) -> str:
    scale, variance = (draw.uniform(channels, low=0.5, high=1.5) for _ in range(2))
    shift, mean = (draw.normal(channels, scale=0.1) for _ in range(2))
    return draw.add("BatchNormalization", x, scale, shift, mean, variance)


def _conv(draw: Drawing, x: str, shape: tuple[int, ...], **attributes: object) -> str:
    """A Conv with weights of ``shape`` that keep the scale of what goes through."""
    fan_in = 1
    for size in shape[1:]:
        fan_in *= size
    return draw.add("Conv", x, draw.normal(*shape, scale=fan_in**-0.5), draw.normal(shape[0], scale=0.1), **attributes)


def _model(draw: Drawing, outputs: Mapping[str, str], *, x: Shape, shapes: Mapping[str, Shape]) -> onnx.ModelProto:
    for called, made in outputs.items():
        draw.name(made, called)
    return draw.model("row", inputs={"x": ("float32", x)}, outputs=shapes)


def _perceptron(*, gemm: bool) -> Callable[[], onnx.ModelProto]:
    """Three dense layers, each with BatchNormalization and ReLU, on 512 points with 128 features: PointNet."""

    def build() -> onnx.ModelProto:
        draw, x = Drawing(), "x"
        for _ in range(3):
            weight, bias = draw.normal(128, 128, scale=128**-0.5), draw.normal(128, scale=0.1)
            x = draw.add("Gemm", x, weight, bias) if gemm else draw.add("Add", draw.add("MatMul", x, weight), bias)
            x = draw.add("Relu", _batchnorm(draw, x, 128))
        return _model(draw, {"y": x}, x=(512, 128), shapes={"y": (512, 128)})

    return build


def _downsampling() -> onnx.ModelProto:
    """Normalize, then a 2x2 Conv with stride 2: between the stages of ConvNeXt."""
    draw, x = Drawing(), "x"
    for channels in (64, 128):
        x = _conv(draw, _batchnorm(draw, x, channels), (2 * channels, channels, 2, 2), strides=[2, 2])
    return _model(draw, {"y": x}, x=(1, 64, 112, 112), shapes={"y": (1, 256, 28, 28)})


def _scaled() -> onnx.ModelProto:
    """Bytes of an image that are scaled in the model, then the first Conv of a MobileNet."""
    draw = Drawing()
    x = _conv(draw, draw.add("Div", "x", draw.constant(255.0)), (32, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    return _model(draw, {"y": x}, x=(1, 3, 224, 224), shapes={"y": (1, 32, 112, 112)})


def _shifted() -> onnx.ModelProto:
    """An image that is standardized in the model, then the same Conv, which pads it."""
    draw = Drawing()
    x = draw.add("Sub", draw.add("Div", "x", draw.constant(255.0)), draw.constant([[[0.485]], [[0.456]], [[0.406]]]))
    x = draw.add("Div", x, draw.constant([[[0.229]], [[0.224]], [[0.225]]]))
    x = _conv(draw, x, (32, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    return _model(draw, {"y": x}, x=(1, 3, 224, 224), shapes={"y": (1, 32, 112, 112)})


def _standardized() -> onnx.ModelProto:
    """Three Convs whose results are standardized by Sub and Div."""
    draw, x = Drawing(), "x"
    for _ in range(3):
        x = _conv(draw, x, (64, 64, 3, 3), pads=[1, 1, 1, 1])
        x = draw.add("Sub", x, draw.normal(1, 64, 1, 1, scale=0.1))
        x = draw.add("Relu", draw.add("Div", x, draw.uniform(1, 64, 1, 1, low=0.5, high=1.5)))
    return _model(draw, {"y": x}, x=(1, 64, 56, 56), shapes={"y": (1, 64, 56, 56)})


def _upsampling() -> onnx.ModelProto:
    """Two transposed Convs, each with a scale and a shift per channel."""
    draw, x = Drawing(), "x"
    for inputs, outputs in ((128, 64), (64, 32)):
        weight = draw.normal(inputs, outputs, 2, 2, scale=inputs**-0.5)
        x = draw.add("ConvTranspose", x, weight, strides=[2, 2])
        x = draw.add("Mul", x, draw.uniform(outputs, 1, 1, low=0.5, high=1.5))
        x = draw.add("Add", x, draw.normal(outputs, 1, 1, scale=0.1))
    return _model(draw, {"y": x}, x=(1, 128, 28, 28), shapes={"y": (1, 32, 112, 112)})


def _heads() -> onnx.ModelProto:
    """The last Convs of a detector, which read one feature map: four distances to a box, and whether it is centered."""
    draw = Drawing()
    sizes = {"box": 4, "center": 1}
    outputs = {name: _conv(draw, "x", (size, 256, 3, 3), pads=[1, 1, 1, 1]) for name, size in sizes.items()}
    return _model(draw, outputs, x=(1, 256, 40, 40), shapes={name: (1, size, 40, 40) for name, size in sizes.items()})


def _shared() -> onnx.ModelProto:
    """A Conv with few inputs whose result goes on as it is and normalized."""
    draw = Drawing()
    x = _conv(draw, "x", (32, 3, 1, 1))
    outputs = {"a": draw.add("Relu", _batchnorm(draw, x, 32)), "b": draw.add("Relu", x)}
    return _model(draw, outputs, x=(1, 3, 112, 112), shapes=dict.fromkeys(outputs, (1, 32, 112, 112)))


def _linear_chain() -> onnx.ModelProto:
    """1x1 Convs with nothing in between and many channels in the middle: a linear expansion."""
    draw, x = Drawing(), "x"
    for _ in range(2):
        x = _conv(draw, _conv(draw, x, (256, 64, 1, 1)), (64, 256, 1, 1))
        x = draw.add("Relu", x)
    return _model(draw, {"y": x}, x=(1, 64, 56, 56), shapes={"y": (1, 64, 56, 56)})


def _activated(activation: Callable[[Drawing, str], str]) -> Callable[[], onnx.ModelProto]:
    """Three Convs, each with an activation that is written out."""

    def build() -> onnx.ModelProto:
        draw, x = Drawing(), "x"
        for _ in range(3):
            x = activation(draw, _conv(draw, x, (64, 64, 3, 3), pads=[1, 1, 1, 1]))
        return _model(draw, {"y": x}, x=(1, 64, 56, 56), shapes={"y": (1, 64, 56, 56)})

    return build


def _hard_swish(draw: Drawing, x: str) -> str:
    shifted = draw.add("Add", x, draw.constant(3.0))
    gate = draw.add("Div", draw.add("Clip", shifted, draw.constant(0.0), draw.constant(6.0)), draw.constant(6.0))
    return draw.add("Mul", x, gate)


def _mish(draw: Drawing, x: str) -> str:
    return draw.add("Mul", x, draw.add("Tanh", draw.add("Softplus", x)))


def _elementwise() -> onnx.ModelProto:
    """Scale, shift, Tanh and a gate, three times, on a feature map."""
    draw, x, size = Drawing(), "x", (1, 64, 56, 56)
    for _ in range(3):
        scaled = draw.add("Mul", x, draw.uniform(1, 64, 1, 1, low=0.5, high=1.5))
        x = draw.add("Mul", x, draw.add("Tanh", draw.add("Add", scaled, draw.normal(1, 64, 1, 1, scale=0.1))))
    return _model(draw, {"y": x}, x=size, shapes={"y": size})


_CONVOLUTIONS = (
    Row("gemm-batchnorm", "Gemm → BN", ("gemm-batchnorm",), _perceptron(gemm=True)),
    Row("matmul-add-batchnorm", "MatMul → Add → BN", ("matmul-add-batchnorm",), _perceptron(gemm=False)),
    Row("batchnorm-conv", "BN → Conv", ("batchnorm-conv",), _downsampling),
    Row("scale-conv", "x/255 → Conv", ("affine-conv",), _scaled),
    Row("standardize-conv", "(x/255 − mean)/std → padded Conv", ("affine-conv",), _shifted),
    Row("conv-sub-div", "Conv → Sub → Div", ("conv-affine",), _standardized),
    Row("convtranspose-mul-add", "ConvTranspose → Mul → Add", ("conv-affine",), _upsampling),
    Row("conv-siblings", "Convs on one input", ("conv-siblings",), _heads),
    Row("conv-shared-batchnorm", "Conv → BN and others", ("conv-shared-batchnorm",), _shared),
    Row("conv-chain", "Conv 1×1 → Conv 1×1", ("conv-chain",), _linear_chain),
    Row("hard-swish", "Conv → HardSwish, written out", ("hard-swish",), _activated(_hard_swish)),
)

_CODE = (OPENVINO,)
_ELEMENTS = (
    Row("conv-mish", "Conv → Mish", (), _activated(_mish), engines=_CODE),
    Row("elementwise-chain", "Mul → Add → Tanh → Mul", (), _elementwise, engines=_CODE),
)

_TOKENS = (1, 128, 384)


def _projections() -> onnx.ModelProto:
    """Queries, keys and values of the one token that a decoder adds, 768 wide, from one tensor."""
    draw, tokens, width = Drawing(), (1, 1, 768), 768
    outputs = {}
    for name in "qkv":
        product = draw.add("MatMul", "x", draw.normal(width, width, scale=width**-0.5))
        outputs[name] = draw.add("Add", product, draw.normal(width, scale=0.1))
    return _model(draw, outputs, x=tokens, shapes=dict.fromkeys(outputs, tokens))


def _expansion() -> onnx.ModelProto:
    """Dense layers with nothing in between and more in the middle than outside, as after an adapter is trained."""
    draw, x = Drawing(), "x"
    for _ in range(2):
        for inner, outer in ((384, 1536), (1536, 384)):
            product = draw.add("MatMul", x, draw.normal(inner, outer, scale=inner**-0.5))
            x = draw.add("Add", product, draw.normal(outer, scale=0.1))
        x = draw.add("Relu", x)
    return _model(draw, {"y": x}, x=_TOKENS, shapes={"y": _TOKENS})


def _dense() -> onnx.ModelProto:
    """Four dense layers with ReLU over 1,024 points, 64 wide."""
    draw, x, size = Drawing(), "x", (1, 1024, 64)
    for _ in range(4):
        product = draw.add("MatMul", x, draw.normal(64, 64, scale=64**-0.5))
        x = draw.add("Relu", draw.add("Add", product, draw.normal(64, scale=0.1)))
    return _model(draw, {"y": x}, x=size, shapes={"y": size})


def _attention() -> onnx.ModelProto:
    """Attention over 128 tokens with 12 heads and no mask, the root of the scale on both factors."""
    draw, heads, size = Drawing(), 12, 32
    parts = []
    for order in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
        product = draw.add("MatMul", "x", draw.normal(384, 384, scale=384**-0.5))
        layer = draw.add("Add", product, draw.normal(384, scale=0.1))
        split = draw.add("Reshape", layer, draw.integers(0, 0, heads, size))
        parts.append(draw.add("Transpose", split, perm=list(order)))
    root = draw.constant(size**-0.25)
    scores = draw.add("MatMul", draw.add("Mul", parts[0], root), draw.add("Mul", parts[1], root))
    heard = draw.add("MatMul", draw.add("Softmax", scores, axis=-1), parts[2])
    y = draw.add("Reshape", draw.add("Transpose", heard, perm=[0, 2, 1, 3]), draw.integers(0, 0, heads * size))
    return _model(draw, {"y": y}, x=_TOKENS, shapes={"y": _TOKENS})


_MATRICES = (
    Row("matmul-siblings", "MatMuls on one input (Q/K/V)", ("matmul-siblings",), _projections),
    Row("matmul-chain", "MatMul → MatMul", ("matmul-chain",), _expansion),
    Row("matmul-bias", "3-D MatMul → Add", ("matmul-bias",), _dense, engines=_CODE),
    Row("attention", "attention without a mask", ("attention", "attention-projection"), _attention),
)

ROWS: tuple[Row, ...] = (*_CONVOLUTIONS, *_MATRICES, *_ELEMENTS)
