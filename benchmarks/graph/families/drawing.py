"""Nodes and weights on the way to a model: what every family is drawn with.

Weights are random but the same in every run. Shapes that a plain exporter computes in the graph (Shape, Gather,
Concat, Reshape) are computed in the graph here too, because folding them is part of what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
Feed = dict[str, Array]
Shape = Sequence[int | str]

OPSET = 17
"""The last one where ReduceMean has its axes as an attribute: what exporters of opsets 11 to 17 give."""


class Drawing:
    """A graph that grows by one node at a time; methods give back the names of the tensors that they make."""

    def __init__(self, *, seed: int = 0, opset: int = OPSET) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._opset = opset

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output."""
        return self.several(1, operator, *inputs, **attributes)[0]

    def several(self, count: int, operator: str, *inputs: str, **attributes: Any) -> list[str]:
        """A node with `count` outputs."""
        stem = f"{operator}_{len(self._nodes)}"
        outputs = [stem if count == 1 else f"{stem}_{number}" for number in range(count)]
        self._nodes.append(helper.make_node(operator, inputs, outputs, name=f"/{stem}", **attributes))
        return outputs

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """A weight with this value."""
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype).reshape(np.shape(value)), name))
        return name

    def integers(self, *values: int) -> str:
        """A vector of integers, as shapes and axes are given."""
        return self.constant(values, np.int64)

    def integer(self, value: int) -> str:
        """An integer without a dimension."""
        return self.constant(value, np.int64)

    def normal(self, *shape: int, scale: float, offset: float = 0.0) -> str:
        """A weight drawn from the normal distribution."""
        return self.constant(self._random.standard_normal(shape, np.float32) * np.float32(scale) + np.float32(offset))

    def uniform(self, *shape: int, low: float, high: float) -> str:
        """A weight drawn evenly: what may not be negative."""
        return self.constant(self._random.random(shape, np.float32) * np.float32(high - low) + np.float32(low))

    def name(self, made: str, called: str) -> str:
        """Gives a tensor the name that users of the model know it by."""
        for node in self._nodes:
            for names in (node.input, node.output):
                for place, each in enumerate(names):
                    if each == made:
                        names[place] = called
        return called

    def model(
        self, called: str, *, inputs: Mapping[str, tuple[npt.DTypeLike, Shape]], outputs: Mapping[str, Shape]
    ) -> onnx.ModelProto:
        """The model; its outputs, which are all of FLOAT, were named before."""
        taken = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
            for name, (dtype, shape) in inputs.items()
        ]
        given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
        graph = helper.make_graph(self._nodes, called, taken, given, self._weights)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self._opset)], ir_version=8, producer_name="openclaw-bench"
        )
