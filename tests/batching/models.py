"""Small models that behave as large ones do: sequences with a mask, images, rows that depend on each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = [helper.make_opsetid("", 17)]
VOCABULARY = 1000
POSITIONS = 512


class Graph:
    """Nodes and weights as they are written down."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, values: object, dtype: type[np.generic] = np.int64) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant(self._random.standard_normal(shape) / np.sqrt(shape[0]), np.float32)

    def save(
        self, path: Path, inputs: list[tuple[str, int, list[object]]], outputs: list[tuple[str, int, list[object]]]
    ) -> Path:
        graph = helper.make_graph(
            self.nodes,
            path.stem,
            [helper.make_tensor_value_info(*item) for item in inputs],
            [helper.make_tensor_value_info(*item) for item in outputs],
            self.weights,
        )
        onnx.save(helper.make_model(graph, opset_imports=OPSET, ir_version=8), path)
        return path


def transformer(path: Path, *, hidden: int = 32, heads: int = 4, layers: int = 2, masked: bool = True) -> Path:
    """As BERT: token ids, mask and segments INT64[N,S] -> ``hidden`` FP32[N,S,hidden] and ``pooled`` FP32[N,hidden].

    ``pooled`` is the mean over the tokens that the mask names. Without ``masked`` attention ignores the mask.
    """
    graph = Graph()
    tokens = graph.op("Gather", graph.weight(VOCABULARY, hidden), "input_ids")
    segments = graph.op("Gather", graph.weight(2, hidden), "token_type_ids")
    length = graph.op("Gather", graph.op("Shape", "input_ids"), graph.constant(1))
    positions = graph.op("Range", graph.constant(0), length, graph.constant(1))
    places = graph.op("Gather", graph.weight(POSITIONS, hidden), positions)
    state = graph.op("Add", graph.op("Add", tokens, segments), places)
    mask = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    lifted = graph.op("Unsqueeze", mask, graph.constant([1, 2]))
    hole = graph.op("Mul", graph.op("Sub", graph.constant(1.0, np.float32), lifted), graph.constant(-1e4, np.float32))
    for _ in range(layers):
        state = _layer(graph, state, hole if masked else None, hidden=hidden, heads=heads)
    graph.op("Identity", state, output="hidden")
    weighted = graph.op("Mul", state, graph.op("Unsqueeze", mask, graph.constant([2])))
    total = graph.op("ReduceSum", weighted, graph.constant([1]), keepdims=0)
    count = graph.op("ReduceSum", mask, graph.constant([1]), keepdims=1)
    graph.op("Div", total, count, output="pooled")
    inputs = [(name, TensorProto.INT64, ["N", "S"]) for name in ("input_ids", "attention_mask", "token_type_ids")]
    outputs = [("hidden", TensorProto.FLOAT, ["N", "S", hidden]), ("pooled", TensorProto.FLOAT, ["N", hidden])]
    return graph.save(path, inputs, outputs)


def _layer(graph: Graph, state: str, hole: str | None, *, hidden: int, heads: int) -> str:
    shape = graph.constant([0, 0, heads, hidden // heads])
    query, key, value = (
        graph.op(
            "Transpose", graph.op("Reshape", graph.op("MatMul", state, graph.weight(hidden, hidden)), shape), perm=order
        )
        for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    )
    scores = graph.op("Mul", graph.op("MatMul", query, key), graph.constant((hidden // heads) ** -0.5, np.float32))
    if hole is not None:
        scores = graph.op("Add", scores, hole)
    context = graph.op("Transpose", graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value), perm=[0, 2, 1, 3])
    joined = graph.op("Reshape", context, graph.constant([0, 0, hidden]))
    state = _normalized(graph, graph.op("Add", state, graph.op("MatMul", joined, graph.weight(hidden, hidden))), hidden)
    wide = graph.op("Relu", graph.op("MatMul", state, graph.weight(hidden, 4 * hidden)))
    return _normalized(
        graph, graph.op("Add", state, graph.op("MatMul", wide, graph.weight(4 * hidden, hidden))), hidden
    )


def _normalized(graph: Graph, state: str, hidden: int) -> str:
    ones, zeros = graph.constant(np.ones(hidden), np.float32), graph.constant(np.zeros(hidden), np.float32)
    return graph.op("LayerNormalization", state, ones, zeros, axis=-1)


def centered(path: Path) -> Path:
    """FP32[N,4] x less the mean over the whole batch: rows are not independent."""
    graph = Graph()
    graph.op("Sub", "x", graph.op("ReduceMean", "x", axes=[0], keepdims=1), output="y")
    return graph.save(path, [("x", TensorProto.FLOAT, ["N", 4])], [("y", TensorProto.FLOAT, ["N", 4])])


def frames(path: Path, *, size: int = 16) -> Path:
    """UINT8[N,3,size,size] frames -> FP32[N,8] scores: a convolution and its mean."""
    graph = Graph()
    pixels = graph.op("Cast", "frame", to=TensorProto.FLOAT)
    maps = graph.op("Relu", graph.op("Conv", pixels, graph.weight(8, 3, 3, 3)))
    graph.op("ReduceMean", maps, axes=[2, 3], keepdims=0, output="scores")
    return graph.save(
        path, [("frame", TensorProto.UINT8, ["N", 3, size, size])], [("scores", TensorProto.FLOAT, ["N", 8])]
    )


def picky(path: Path) -> Path:
    """INT64[N] index and FP32[N,H,W] image -> FP32[N,H,W]: image plus a value looked up; fails where index > 9."""
    graph = Graph()
    looked = graph.op("Gather", graph.constant(np.arange(10), np.float32), "index")
    graph.op("Add", "image", graph.op("Unsqueeze", looked, graph.constant([1, 2])), output="sum")
    inputs = [("index", TensorProto.INT64, ["N"]), ("image", TensorProto.FLOAT, ["N", "H", "W"])]
    return graph.save(path, inputs, [("sum", TensorProto.FLOAT, ["N", "H", "W"])])


def token_request(length: int, *, seed: int, rows: int = 1) -> dict[str, np.ndarray]:
    """A request to a transformer; of more than two tokens the last is masked by the client itself."""
    random = np.random.default_rng(seed)
    mask = np.ones((rows, length), np.int64)
    if length > 2:
        mask[:, -1] = 0
    return {
        "input_ids": random.integers(0, VOCABULARY, (rows, length)),
        "attention_mask": mask,
        "token_type_ids": random.integers(0, 2, (rows, length)),
    }
