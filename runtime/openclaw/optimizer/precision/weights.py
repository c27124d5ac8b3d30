"""Weights alone in 8 or 4 bits: ``MatMulNBits``, onnxruntime's product with a matrix in blocks of whole numbers.

Every block of 32 weights of an output has a scale of its own; the input is rounded in blocks as well while it is
multiplied (accuracy level 4), unlike all of a tensor at once. It is for products of few rows, as one word at a time:
these wait for weights from memory, of which there are a quarter or an eighth. With many rows it is slower than float.
"""

from __future__ import annotations

import functools
from typing import Any

import onnx

from openclaw.errors import NotApplicable
from openclaw.optimizer.precision.preparing import prepared
from openclaw.optimizer.precision.quiet import quietly
from openclaw.optimizer.precision.reach import worth_matrices
from openclaw.optimizer.precision.sensitivity import within_budget
from openclaw.optimizer.recipe import Judge, Made, Material, Recipe

BLOCK = 32
INT8_ARITHMETIC = 4
SMALLEST = 4096
"""Weights of a matrix below which nothing is saved."""


def candidates(model: onnx.ModelProto) -> dict[str, float]:
    """The products with a constant matrix of 32-bit floats, by name, and an estimate of the harm (all alike)."""
    matrices = {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
        and len(tensor.dims) == 2
        and tensor.dims[0] * tensor.dims[1] >= SMALLEST
    } - {value.name for value in model.graph.input}
    return {
        node.name: 1.0
        for node in model.graph.node
        if node.op_type == "MatMul" and node.domain in ("", "ai.onnx") and node.input[1] in matrices
    }


def lowered(model: onnx.ModelProto, names: frozenset[str], *, bits: int) -> onnx.ModelProto:
    """A copy with the weights of the products ``names`` in ``bits`` bits."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with quietly():
        quantizer_type, config_type = _library()
        quantizer = quantizer_type(
            copy,
            nodes_to_exclude=[node.name for node in copy.graph.node if node.name not in names],
            algo_config=config_type(block_size=BLOCK, is_symmetric=True, accuracy_level=INT8_ARITHMETIC, bits=bits),
        )
        quantizer.process()
    made: onnx.ModelProto = quantizer.model.model
    return made


def _library() -> tuple[Any, Any]:
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    return MatMulNBitsQuantizer, DefaultWeightOnlyQuantConfig


def make(material: Material, judge: Judge, *, bits: int) -> Made:
    """Weights in ``bits`` bits, but for the layers that the budget asks to leave in float.

    Raises:
        NotApplicable: there is no matrix to round, or no form held the budget.
    """
    worth_matrices(material)
    model = prepared(material.fused)
    names = candidates(model)
    if not names:
        raise NotApplicable(f"the model has no MatMul with a constant matrix of at least {SMALLEST} 32-bit floats")
    every = frozenset(names)
    found = within_budget(names, lambda floats: judge(lowered(model, every - floats, bits=bits)), ends=material.ends)
    notes: dict[str, object] = {"layers": len(names), "float layers": sorted(found.floats)}
    return Made(lowered(model, every - frozenset(found.floats), bits=bits), notes)


RECIPES: tuple[Recipe, ...] = (
    Recipe("int8-weights", "int8", functools.partial(make, bits=8)),
    Recipe("int4-weights", "int4", functools.partial(make, bits=4)),
)
