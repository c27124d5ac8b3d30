"""Small graphs for tests, grown one node at a time; methods give back the names of the tensors that they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]
Sizes = Sequence[int | str | None] | None


class Drawing:
    """A graph on the way to a model."""

    def __init__(self, *, opset: int = 17, seed: int = 0, prefix: str = "") -> None:
        self.opset = opset
        self.ranks: dict[str, int] = {}
        self._prefix = prefix
        self.random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._weights: list[onnx.TensorProto] = []

    def input(self, name: str, sizes: Sizes, dtype: npt.DTypeLike = np.float32) -> str:
        """An input of the graph."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._inputs.append(helper.make_tensor_value_info(name, kind, sizes))
        return name

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32, *, overridable: bool = False) -> str:
        """An initializer, which callers can replace if it is overridable."""
        array = np.asarray(value, dtype)
        name = f"{self._prefix}w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array, name))
        if overridable:
            self.input(name, array.shape, dtype)
        return name

    def weight(self, *shape: int, overridable: bool = False, dtype: npt.DTypeLike = np.float32) -> str:
        """Normal random numbers."""
        return self.constant(self.random.standard_normal(shape), dtype, overridable=overridable)

    def positive(self, *shape: int, dtype: npt.DTypeLike = np.float32) -> str:
        """Random numbers from 0.5 to 1.5."""
        return self.constant(self.random.random(shape) + 0.5, dtype)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output."""
        return self.several(1, operator, *inputs, **attributes)[0]

    def several(self, count: int, operator: str, *inputs: str, **attributes: Any) -> list[str]:
        """A node with ``count`` outputs."""
        stem = f"{self._prefix}{operator.lower()}{len(self._nodes)}"
        outputs = [stem if count == 1 else f"{stem}_{number}" for number in range(count)]
        self._nodes.append(helper.make_node(operator, inputs, outputs, name=stem, **attributes))
        return outputs

    def batchnorm(self, x: str, channels: int, *, dtype: npt.DTypeLike = np.float32, **attributes: Any) -> str:
        """A BatchNormalization with random statistics."""
        parts = [self.positive(channels, dtype=dtype), self.weight(channels, dtype=dtype)]
        parts += [self.weight(channels, dtype=dtype), self.positive(channels, dtype=dtype)]
        return self.add("BatchNormalization", x, *parts, **attributes)

    def body(self, *outputs: str) -> onnx.GraphProto:
        """The graph so far, as a branch of an If."""
        return helper.make_graph(
            self._nodes, "body", self._inputs, [onnx.ValueInfoProto(name=name) for name in outputs], self._weights
        )

    def model(self, *outputs: str) -> onnx.ModelProto:
        """The model; types and shapes of its outputs are what can be inferred, or ``ranks`` says."""
        graph = self.body(*outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        del model.graph.value_info[:]
        for output in model.graph.output:
            if not output.type.tensor_type.HasField("shape") and output.name in self.ranks:
                kind, rank = output.type.tensor_type.elem_type, self.ranks[output.name]
                output.CopyFrom(helper.make_tensor_value_info(output.name, kind, [None] * rank))
        onnx.checker.check_model(model, full_check=True)
        return model
