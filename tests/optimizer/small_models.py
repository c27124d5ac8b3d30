"""Small models with random weights, for what lowers precision."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from openclaw.optimizer.recipe import Feed, Material

VNNI = frozenset({"avx2", "avx512_vnni"})


class Drawing:
    """Collects nodes and initializers."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def weight(self, *shape: int, gain: float = 1.0) -> str:
        spread = gain / np.sqrt(np.prod(shape[1:]) if len(shape) == 4 else max(shape[0], 1))
        return self.constant((self.random.standard_normal(shape) * spread).astype(np.float32))

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, operator: str, *inputs: str, output: str = "", domain: str = "", **attributes: object) -> str:
        output = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], domain=domain, **attributes))
        return output

    def embedded(self, *inputs: str) -> str:
        """An EmbedLayerNormalization, which must have its second output."""
        self.nodes.append(
            helper.make_node("EmbedLayerNormalization", list(inputs), ["embedded", "index"], domain="com.microsoft")
        )
        return "embedded"

    def model(
        self, inputs: dict[str, list[object]], *, opset: int = 17, kind: int = TensorProto.FLOAT
    ) -> onnx.ModelProto:
        values = [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()]
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "small", values, [result], self.tensors)
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def convolutional(*, opset: int = 17) -> onnx.ModelProto:
    """Plain, depthwise and grouped convolutions, a residual, and a Gemm whose weights are transposed."""
    draw = Drawing()
    x = draw.node("Relu", draw.node("Conv", "x", draw.weight(16, 3, 3, 3), kernel_shape=[3, 3], pads=[1] * 4))
    z = draw.node("Conv", x, draw.weight(16, 1, 3, 3), kernel_shape=[3, 3], pads=[1] * 4, group=16)
    z = draw.node("Conv", z, draw.weight(16, 4, 1, 1), draw.weight(16), kernel_shape=[1, 1], group=4)
    x = draw.node("Relu", draw.node("Add", z, x))
    x = draw.node("Flatten", draw.node("GlobalAveragePool", x))
    draw.node("Gemm", x, draw.weight(10, 16), draw.weight(10), transB=1, output="y")
    return draw.model({"x": ["N", 3, 8, 8]}, opset=opset)


def perceptron(*, opset: int = 17) -> onnx.ModelProto:
    """Two layers: MatMul and Add, then a Gemm with factors and transposed weights."""
    draw = Drawing()
    x = draw.node("Relu", draw.node("Add", draw.node("MatMul", "x", draw.weight(64, 128)), draw.weight(128)))
    draw.node("Gemm", x, draw.weight(32, 128), draw.weight(32), transB=1, alpha=0.5, beta=2.0, output="y")
    return draw.model({"x": ["N", 64]}, opset=opset)


def transformer() -> onnx.ModelProto:
    """One layer as the passes leave it: fused attention, GELU, normalization with the residual, and embeddings."""
    draw = Drawing()
    width, heads, words = 64, 4, 2048
    normal = lambda: (draw.constant(np.ones(width, np.float32)), draw.weight(width, gain=0.1))  # noqa: E731
    fused = {"domain": "com.microsoft"}
    ids = draw.node("Cast", "ids", to=TensorProto.INT32)
    tables = draw.weight(words, width, gain=30), draw.weight(1024, width, gain=10)
    x = draw.embedded(ids, "", *tables, "", *normal())
    mask = draw.node("Cast", draw.node("Sign", "ids"), to=TensorProto.INT32)
    weights = draw.weight(width, 3 * width), draw.weight(3 * width)
    z = draw.node("Attention", x, *weights, mask, num_heads=heads, **fused)
    z = draw.node("MatMul", z, draw.weight(width, width))
    x = draw.node("SkipLayerNormalization", z, x, *normal(), draw.weight(width), **fused)
    z = draw.node("BiasGelu", draw.node("MatMul", x, draw.weight(width, 4 * width)), draw.weight(4 * width), **fused)
    z = draw.node("MatMul", z, draw.weight(4 * width, width))
    draw.node("SkipLayerNormalization", z, x, *normal(), draw.weight(width), output="y", **fused)
    return draw.model({"ids": ["N", "S"]}, kind=TensorProto.INT64)


def feeds_of(model: onnx.ModelProto, count: int = 6, *, batch: int = 4, seed: int = 0) -> list[Feed]:
    """Random feeds; free dimensions but the first are 12."""
    random = np.random.default_rng(seed)
    feeds = []
    for _ in range(count):
        feed = {}
        for value in model.graph.input:
            sizes = [
                size.dim_value or (12 if place else batch)
                for place, size in enumerate(value.type.tensor_type.shape.dim)
            ]
            whole = value.type.tensor_type.elem_type == TensorProto.INT64
            feed[value.name] = (
                random.integers(0, 2048, sizes) if whole else random.standard_normal(sizes).astype(np.float32)
            )
        feeds.append(feed)
    return feeds


def run(model: onnx.ModelProto, feed: Feed) -> np.ndarray:
    """The first output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(feed))[0])


def difference(model: onnx.ModelProto, other: onnx.ModelProto, feeds: list[Feed]) -> float:
    """The share of the answers' energy in which two models differ."""
    pairs = [(run(model, feed), run(other, feed)) for feed in feeds]
    return float(sum(np.square(a - b).sum() for a, b in pairs) / sum(np.square(a).sum() for a, _ in pairs))


def material(
    model: onnx.ModelProto, folder: Path, *, calibrated: bool = True, instructions: frozenset[str] = VNNI
) -> Material:
    """What a recipe is given; the fused form is the model itself."""
    feeds = feeds_of(model)
    return Material(
        exported=model,
        fused=model,
        calibration=feeds if calibrated else [],
        feeds=feeds[:1],
        instructions=instructions,
        threads=1,
        folder=folder,
    )


def operators(model: onnx.ModelProto) -> list[str]:
    """Of the main graph's nodes, in order."""
    return [node.op_type for node in model.graph.node]
