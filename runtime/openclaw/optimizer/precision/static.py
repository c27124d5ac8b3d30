"""INT8 for convolutional networks: onnxruntime's static quantization, in the form of QuantizeLinear and its inverse.

Scales come from the calibration data: the smallest and largest value of every tensor, or a range that leaves rare
values out, by share (percentile) or by what the rest loses (entropy). Weights have a scale for every output channel.
onnxruntime turns the pairs around an operator into its 8-bit form when it loads the model.

Layers whose loss breaks the budget go back to float (``sensitivity``).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import onnx

from openclaw.errors import NotApplicable
from openclaw.optimizer.precision import ranges
from openclaw.optimizer.precision.instructions import kind_of
from openclaw.optimizer.precision.preparing import prepared
from openclaw.optimizer.precision.quiet import quietly
from openclaw.optimizer.precision.sensitivity import within_budget
from openclaw.optimizer.recipe import Judge, Made, Material, Recipe

# Operators with an 8-bit kernel, or that only move values. Those left out would be computed in float between a pair.
OPERATORS = [
    *("Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Flatten", "Gemm", "GlobalAveragePool"),
    *("LeakyRelu", "MatMul", "MaxPool", "Mul", "Relu", "Reshape", "Resize", "Sigmoid", "Split", "Squeeze", "Transpose"),
    "Unsqueeze",
]
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SPREADS = "spreads of values"


class Quantizer:
    """One model calibrated by one method, from which forms with some layers in float are made.

    Raises:
        NotApplicable: it has no convolution, or an operator set that cannot be raised.
    """

    def __init__(self, material: Material, method: str) -> None:
        self.model = prepared(material.fused)
        constants = {tensor.name for tensor in self.model.graph.initializer}
        nodes = [node for node in self.model.graph.node if node.op_type in LAYERS and node.domain in ("", "ai.onnx")]
        self.layers = [node.name for node in nodes if node.input[1] in constants]
        if not any(node.op_type in ("Conv", "ConvTranspose") for node in nodes if node.name in self.layers):
            raise NotApplicable("the model has no convolution with constant weights; int8-dynamic is for matrices")
        self._kind = kind_of(material.instructions)
        if _SPREADS not in material.shared:
            # The same for every method, and for them all the model runs on the data once.
            found = ranges.spreads(self.model, OPERATORS, material.calibration, threads=material.threads)
            material.shared[_SPREADS] = found
        self._ranges = ranges.ranges(material.shared[_SPREADS], method)
        self._whole: onnx.ModelProto | None = None

    def form(self, floats: frozenset[str]) -> onnx.ModelProto:
        """The model in INT8 but for ``floats``; without any it is made once."""
        if floats:
            return self._form(floats)
        if self._whole is None:
            self._whole = self._form(floats)
        return self._whole

    def _form(self, floats: frozenset[str]) -> onnx.ModelProto:
        with quietly():
            from onnxruntime.quantization import QuantType
            from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

            copy = onnx.ModelProto()
            copy.CopyFrom(self.model)
            quantizer = QDQQuantizer(
                copy,
                per_channel=True,
                reduce_range=self._kind.reduce_range,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QInt8 if self._kind.signed_activations else QuantType.QUInt8,
                tensors_range=self._ranges,
                nodes_to_quantize=[],
                nodes_to_exclude=sorted(floats),
                op_types_to_quantize=OPERATORS,
                extra_options={"MatMulConstBOnly": True},
            )
            quantizer.quantize_model()
            # The library sorts only what it saves itself.
            quantizer.model.topological_sort()
            made: onnx.ModelProto = quantizer.model.model
        return made


def make(material: Material, judge: Judge, *, method: str) -> Made:
    """INT8 with scales chosen by ``method``, and the layers in float that the budget asks for.

    Raises:
        NotApplicable: the model does not fit, or no form held the budget.
    """
    try:
        quantizer = Quantizer(material, method)
    except (ValueError, RuntimeError, AssertionError) as error:
        raise NotApplicable(f"onnxruntime's calibration does not take this model: {error}") from error
    found = within_budget(estimates(quantizer.layers), lambda floats: judge(quantizer.form(floats)), ends=material.ends)
    notes: dict[str, object] = {"layers": len(quantizer.layers), "float layers": list(found.floats)}
    return Made(quantizer.form(frozenset(found.floats)), notes)


def estimates(layers: Sequence[str]) -> dict[str, float]:
    """A guess at harms: first and last layers lose most, as they are next to what is given and what is answered."""
    count = len(layers)
    return {name: 1.0 / (1 + min(index, count - 1 - index)) for index, name in enumerate(layers)}


RECIPES: tuple[Recipe, ...] = tuple(
    Recipe(f"int8-static-{method}", "int8", functools.partial(make, method=method), needs_calibration=True)
    for method in ranges.METHODS
)
