"""Models that are nearly all weights: products with random matrices."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 512
TENSOR = SIZE * SIZE * 4
"""Bytes of each matrix."""


def products(path: Path, *seeds: int) -> Path:
    """FP32[N,SIZE] x times a random matrix for each seed."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", [f"x{i}" if i else "x", f"w{i}"], [f"x{i + 1}"]) for i in range(len(seeds))],
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", SIZE])],
        [helper.make_tensor_value_info(f"x{len(seeds)}", TensorProto.FLOAT, ["N", SIZE])],
        [numpy_helper.from_array(weights(seed), f"w{i}") for i, seed in enumerate(seeds)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def weights(seed: int) -> np.ndarray:
    """The matrix of a seed."""
    return np.random.default_rng(seed).standard_normal((SIZE, SIZE)).astype(np.float32) / 20
