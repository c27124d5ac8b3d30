"""The models that are served: a tiny MLP, ResNet50 and BERT-base, with random weights, the same in every run.

Speed does not depend on what the weights say. Shapes are those of the papers: K. He et al. 2016 (arXiv:1512.03385,
with the stride in the 3x3 convolution as everyone has it now) and J. Devlin et al. 2019 (arXiv:1810.04805).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from benchmarks.serving.environments import HOME
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

_FOLDER = HOME / "models"
_REVISION = 1  # of the graphs below: files of another one are not used
_SHORTEST, _LONGEST = 8, 128  # tokens
_VOCABULARY = 30_522
_OPSET = 17
_EPSILON = 1e-12  # of BERT's layer normalization


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model, and what is asked of it.

    Attributes:
        sample: inputs of one request, drawn from a generator.
        threads: that one inference may use, in every subject that lets it be said; None: all cores.
        batch: the largest batch that servers with batching may make of it.
    """

    name: str
    build: Callable[[], onnx.ModelProto]
    sample: Callable[[np.random.Generator], Arrays]
    threads: int | None
    batch: int

    def file(self) -> Path:
        """The ONNX file, written now if it is not there."""
        path = _FOLDER / f"{self.name}-{_REVISION}" / f"{self.name}.onnx"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            onnx.save(self.build(), partial)
            partial.rename(path)
        return path


class _Graph:
    """Nodes and weights on the way to a model."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output, whose name is given back."""
        name = f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: Any, dtype: npt.DTypeLike = np.float32) -> str:
        """A weight with this value."""
        name = f"w_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weight(self, *shape: int, scale: float, offset: float = 0.0) -> str:
        """A weight drawn from the normal distribution."""
        drawn = self._random.standard_normal(shape, dtype=np.float32)
        return self.constant(drawn * np.float32(scale) + np.float32(offset))

    def indices(self, *values: int) -> str:
        """A vector of integers, as shapes and axes are given."""
        return self.constant(values, np.int64)

    def model(self, name: str, *, inputs: list[Any], output: tuple[str, str, list[Any]]) -> onnx.ModelProto:
        """The model; `output` is the node that makes it, its name and its shape."""
        made, called, shape = output
        self._nodes.append(helper.make_node("Identity", [made], [called]))
        outputs = [helper.make_tensor_value_info(called, TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self._nodes, name, inputs, outputs, self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)


def _mlp() -> onnx.ModelProto:
    graph, x = _Graph(), "x"
    widths = (64, 256, 128, 10)
    for narrow, (before, after) in enumerate(pairwise(widths)):
        x = graph.add("Gemm", x, graph.weight(before, after, scale=0.1), graph.constant(np.zeros(after)))
        if narrow < len(widths) - 2:
            x = graph.add("Relu", x)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", widths[0]])]
    return graph.model("mlp", inputs=inputs, output=(graph.add("Softmax", x), "y", ["N", widths[-1]]))


def _convolution(graph: _Graph, x: str, *, channels: tuple[int, int], kernel: int, stride: int = 1) -> str:
    """Convolution and batch normalization; `channels` in and out."""
    before, after = channels
    spread = (2 / (before * kernel * kernel)) ** 0.5
    weights = graph.weight(after, before, kernel, kernel, scale=spread)
    y = graph.add("Conv", x, weights, strides=[stride] * 2, pads=[kernel // 2] * 4, kernel_shape=[kernel] * 2)
    scale, bias, mean = graph.constant(np.full(after, 0.5)), *(graph.weight(after, scale=0.1) for _ in range(2))
    return graph.add("BatchNormalization", y, scale, bias, mean, graph.constant(np.ones(after)))


def _bottleneck(graph: _Graph, x: str, *, channels: tuple[int, int], stride: int, projected: bool) -> str:
    before, inner = channels
    y = graph.add("Relu", _convolution(graph, x, channels=(before, inner), kernel=1))
    y = graph.add("Relu", _convolution(graph, y, channels=(inner, inner), kernel=3, stride=stride))
    y = _convolution(graph, y, channels=(inner, inner * 4), kernel=1)
    shortcut = _convolution(graph, x, channels=(before, inner * 4), kernel=1, stride=stride) if projected else x
    return graph.add("Relu", graph.add("Add", y, shortcut))


def _resnet50() -> onnx.ModelProto:
    graph = _Graph()
    x = graph.add("Relu", _convolution(graph, "image", channels=(3, 64), kernel=7, stride=2))
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    width = 64
    for inner, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            first = block == 0
            x = _bottleneck(graph, x, channels=(width, inner), stride=stride if first else 1, projected=first)
            width = inner * 4
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    x = graph.add("Gemm", x, graph.weight(width, 1000, scale=0.02), graph.constant(np.zeros(1000)))
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 224, 224])]
    return graph.model("resnet50", inputs=inputs, output=(graph.add("Softmax", x), "scores", ["N", 1000]))


class _Bert:
    """BERT-base with a mean over the tokens that are there: what embedding services answer with."""

    layers, width, heads, inner, positions = 12, 768, 12, 3072, 512

    def __init__(self) -> None:
        self.graph = _Graph()

    def model(self) -> onnx.ModelProto:
        graph = self.graph
        mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
        absent = graph.add("Mul", graph.add("Sub", graph.constant(1.0), mask), graph.constant(-10_000.0))
        bias = graph.add("Unsqueeze", absent, graph.indices(1, 2))
        x = self._embedded()
        for _ in range(self.layers):
            x = self._normal(graph.add("Add", x, self._attention(x, bias)))
            inner = self._gelu(self._linear(x, sizes=(self.width, self.inner)))
            x = self._normal(graph.add("Add", x, self._linear(inner, sizes=(self.inner, self.width))))
        weights = graph.add("Unsqueeze", mask, graph.indices(2))
        total = graph.add("ReduceSum", graph.add("Mul", x, weights), graph.indices(1), keepdims=0)
        count = graph.add("ReduceSum", weights, graph.indices(1), keepdims=0)
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["N", "S"]) for name in names]
        embedding = graph.add("Div", total, count)
        return graph.model("bert", inputs=inputs, output=(embedding, "embedding", ["N", self.width]))

    def _embedded(self) -> str:
        graph = self.graph
        words = graph.add("Gather", graph.weight(_VOCABULARY, self.width, scale=0.02), "input_ids")
        types = graph.add("Gather", graph.weight(2, self.width, scale=0.02), "token_type_ids")
        length = graph.add("Gather", graph.add("Shape", "input_ids"), graph.indices(1))
        places = graph.weight(1, self.positions, self.width, scale=0.02)
        places = graph.add("Slice", places, graph.indices(0), length, graph.indices(1))
        return self._normal(graph.add("Add", graph.add("Add", words, types), places))

    def _linear(self, x: str, *, sizes: tuple[int, int]) -> str:
        product = self.graph.add("MatMul", x, self.graph.weight(*sizes, scale=0.02))
        return self.graph.add("Add", product, self.graph.constant(np.zeros(sizes[1])))

    def _normal(self, x: str) -> str:
        scale, bias = self.graph.constant(np.ones(self.width)), self.graph.constant(np.zeros(self.width))
        return self.graph.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=_EPSILON)

    def _gelu(self, x: str) -> str:
        graph = self.graph
        error = graph.add("Erf", graph.add("Div", x, graph.constant(2**0.5)))
        return graph.add("Mul", graph.add("Mul", x, graph.add("Add", error, graph.constant(1.0))), graph.constant(0.5))

    def _attention(self, x: str, bias: str) -> str:
        graph, size, square = self.graph, self.width // self.heads, (self.width, self.width)
        apart = graph.indices(0, 0, self.heads, size)

        def split(*order: int) -> str:
            return graph.add("Transpose", graph.add("Reshape", self._linear(x, sizes=square), apart), perm=order)

        queries, keys, values = split(0, 2, 1, 3), split(0, 2, 3, 1), split(0, 2, 1, 3)
        scores = graph.add("Div", graph.add("MatMul", queries, keys), graph.constant(size**0.5))
        seen = graph.add("MatMul", graph.add("Softmax", graph.add("Add", scores, bias), axis=-1), values)
        together = graph.add("Transpose", seen, perm=(0, 2, 1, 3))
        return self._linear(graph.add("Reshape", together, graph.indices(0, 0, self.width)), sizes=square)


def _mlp_sample(random: np.random.Generator) -> Arrays:
    # Few digits, as in a request that a person or a feature store writes.
    return {"x": random.standard_normal((1, 64)).round(3).astype(np.float32)}


def _image(random: np.random.Generator) -> Arrays:
    return {"image": random.standard_normal((1, 3, 224, 224)).round(3).astype(np.float32)}


def _sentence(random: np.random.Generator) -> Arrays:
    """As many tokens as drawn, evenly between 8 and 128."""
    shape = (1, int(random.integers(_SHORTEST, _LONGEST + 1)))
    ids = random.integers(1000, _VOCABULARY, shape)
    return {"input_ids": ids, "attention_mask": np.ones(shape, np.int64), "token_type_ids": np.zeros(shape, np.int64)}


def padded(arrays: Arrays, length: int = _LONGEST) -> Arrays:
    """A sentence made `length` tokens long with zeros, which the mask hides: a tokenizer's padding to the longest."""
    return {name: np.pad(array, ((0, 0), (0, length - array.shape[1]))) for name, array in arrays.items()}


MLP = ServedModel("mlp", _mlp, _mlp_sample, threads=1, batch=16)
RESNET50 = ServedModel("resnet50", _resnet50, _image, threads=None, batch=1)
BERT = ServedModel("bert", lambda: _Bert().model(), _sentence, threads=None, batch=16)
MODELS = (MLP, RESNET50, BERT)
