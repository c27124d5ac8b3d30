"""Per-channel maps y = scale * x + shift, as graphs spell them: Add, Sub, Mul, Div, BatchNormalization.

All are computed in 64 bits, whatever the graph's type. What is folded is then rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from openclaw.graph.passes.values import input_of, real_constant

Exact = npt.NDArray[np.float64]

ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})
OPERATORS = ARITHMETIC | {"BatchNormalization"}

_DEFAULT_EPSILON = 1e-5


@dataclass(frozen=True)
class Affine:
    """y = scale * x + shift, along one axis.

    Attributes:
        scale: of shape () if all channels share it, else (channels,).
        shift: likewise.
    """

    scale: Exact
    shift: Exact

    def after(self, first: Affine) -> Affine:
        """This map of the result of ``first``."""
        return Affine(self.scale * first.scale, self.scale * first.shift + self.shift)

    def spread(self, channels: int) -> tuple[Exact, Exact]:
        """Scale and shift with one element for every channel."""
        return np.broadcast_to(self.scale, (channels,)), np.broadcast_to(self.shift, (channels,))

    def fits(self, channels: int) -> bool:
        """Whether it maps that many channels to as many; a vector would widen a single channel."""
        return all(part.shape in ((), (channels,)) for part in (self.scale, self.shift))

    @property
    def finite(self) -> bool:
        """Whether it has neither infinities nor NaN, as a division by 0 or a negative variance give."""
        return bool(np.isfinite(self.scale).all() and np.isfinite(self.shift).all())


def along(array: npt.NDArray[np.floating], rank: int, *, axis: int) -> Exact | None:
    """A constant that broadcasts against a tensor of ``rank``, as what it is along ``axis``: () or (channels,).

    None if it varies along another axis, or would give the tensor more dimensions.
    """
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(size != 1 for index, size in enumerate(shape) if index != axis):
        return None
    return np.asarray(array, np.float64).reshape(() if shape[axis] == 1 else (shape[axis],))


def of_node(node: ir.Node, value: ir.Value, *, rank: int, axis: int = 1) -> Affine | None:
    """The map that ``node`` makes of its input ``value``, a tensor of ``rank``; None if it is none, or not finite."""
    if node.domain != "":
        return None
    if node.op_type == "BatchNormalization":
        found = _of_batchnorm(node) if axis == 1 and node.inputs[0] is value else None
    elif node.op_type in ARITHMETIC:
        found = _of_arithmetic(node, value, rank=rank, axis=axis)
    else:
        found = None
    return found if found is not None and found.finite else None


def _of_arithmetic(node: ir.Node, value: ir.Value, *, rank: int, axis: int) -> Affine | None:
    left, right = node.inputs
    operand = real_constant(right if left is value else left)
    if operand is None or left is right:
        return None
    vector = along(operand, rank, axis=axis)
    if vector is None:
        return None
    one, none = np.ones(()), np.zeros(())
    with np.errstate(all="ignore"):
        match node.op_type:
            case "Add":
                return Affine(one, vector)
            case "Mul":
                return Affine(vector, none)
            case "Sub":
                return Affine(one, -vector) if left is value else Affine(-one, vector)
            case _:
                return Affine(1.0 / vector, none) if left is value else None


def _of_batchnorm(node: ir.Node) -> Affine | None:
    """BatchNormalization as it infers: y = gamma * (x - mean) / sqrt(variance + epsilon) + beta."""
    if not infers(node):
        return None
    gamma, beta, mean, variance = (real_constant(input_of(node, index)) for index in range(1, 5))
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    if len({part.shape for part in (gamma, beta, mean, variance)}) != 1 or gamma.ndim != 1:
        return None
    with np.errstate(all="ignore"):
        scale = gamma.astype(np.float64) / np.sqrt(
            variance.astype(np.float64) + node.attributes.get_float("epsilon", _DEFAULT_EPSILON)
        )
        return Affine(scale, beta - mean * scale)


def infers(node: ir.Node) -> bool:
    """Whether a BatchNormalization uses the statistics it is given, per channel, and not those of its batch.

    Before opset 14 it is trained when it has more than one output; opset 7 and 8 have ``spatial``.
    """
    return (
        len(node.inputs) == 5
        and sum(1 for output in node.outputs if output.name) == 1
        and node.attributes.get_int("training_mode", 0) == 0
        and node.attributes.get_int("spatial", 1) == 1
    )
