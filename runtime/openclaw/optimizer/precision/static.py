"""INT8 for convolutional networks: onnxruntime's static quantization, in the form of QuantizeLinear and its inverse.

Scales come from the calibration data: the smallest and largest value of every tensor, or a range that leaves rare
values out, by share (percentile) or by what the rest loses (entropy). Weights have a scale for every output channel.
onnxruntime turns the pairs around an operator into its 8-bit form when it loads the model.

Layers whose loss breaks the budget go back to float (``sensitivity``).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx

from openclaw.errors import NotApplicable
from openclaw.optimizer.precision.instructions import kind_of
from openclaw.optimizer.precision.preparing import prepared
from openclaw.optimizer.precision.quiet import quietly
from openclaw.optimizer.precision.sensitivity import within_budget
from openclaw.optimizer.recipe import Feed, Judge, Made, Material, Recipe

# Operators with an 8-bit kernel, or that only move values. Those left out would be computed in float between a pair.
OPERATORS = [
    *("Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Flatten", "Gemm", "GlobalAveragePool"),
    *("LeakyRelu", "MatMul", "MaxPool", "Mul", "Relu", "Reshape", "Resize", "Sigmoid", "Split", "Squeeze", "Transpose"),
    "Unsqueeze",
]
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

METHODS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
MAX_FEEDS = 64


class _Reader:
    """Feeds for onnxruntime's calibrators."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


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
        self._ranges = _ranges(self.model, material, method=method)

    def form(self, floats: frozenset[str]) -> onnx.ModelProto:
        """The model in INT8 but for ``floats``."""
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        with quietly():
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


def _ranges(model: onnx.ModelProto, material: Material, *, method: str) -> Any:
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    folder = material.folder / f"calibrate-{method}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    with quietly():
        shaped = onnx.shape_inference.infer_shapes(model)
        onnx.save_model(shaped, path, save_as_external_data=True, location="weights")
        calibrator = create_calibrator(
            path,
            OPERATORS,
            augmented_model_path=str(folder / "augmented.onnx"),
            calibrate_method=CalibrationMethod[METHODS[method]],
            use_external_data_format=True,
            extra_options={"symmetric": False},
        )
        try:
            # One feed at a time, because the calibrators keep every tensor of all that they are given at once.
            for feed in material.calibration[:MAX_FEEDS]:
                calibrator.collect_data(_Reader([feed]))
            ranges = calibrator.compute_data()
        finally:
            del calibrator
            _remove(folder)
    return ranges


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def make(material: Material, judge: Judge, *, method: str) -> Made:
    """INT8 with scales chosen by ``method``, and the layers in float that the budget asks for.

    Raises:
        NotApplicable: the model does not fit, or no form held the budget.
    """
    try:
        quantizer = Quantizer(material, method)
    except (ValueError, RuntimeError, AssertionError) as error:
        raise NotApplicable(f"onnxruntime's calibration does not take this model: {error}") from error
    found = within_budget(estimates(quantizer.layers), lambda floats: judge(quantizer.form(floats)))
    notes: dict[str, object] = {"layers": len(quantizer.layers), "float layers": list(found.floats)}
    return Made(quantizer.form(frozenset(found.floats)), notes)


def estimates(layers: Sequence[str]) -> dict[str, float]:
    """A guess at harms: first and last layers lose most, as they are next to what is given and what is answered."""
    count = len(layers)
    return {name: 1.0 / (1 + min(index, count - 1 - index)) for index, name in enumerate(layers)}


RECIPES: tuple[Recipe, ...] = tuple(
    Recipe(f"int8-static-{method}", "int8", functools.partial(make, method=method), needs_calibration=True)
    for method in METHODS
)
