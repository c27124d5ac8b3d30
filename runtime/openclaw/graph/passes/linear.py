"""Conv, ConvTranspose and Gemm as y[o] = sum_i W[o, i] x[i] + b[o], and what folding a map into them does to W and b.

With y' = s y + t per output channel:   W'[o, i] = s[o] W[o, i],   b'[o] = s[o] b[o] + t[o].
With x = s x' + t per input channel:    W'[o, i] = W[o, i] s[i],   b'[o] = b[o] + sum_i W[o, i] t[i].

The second holds where every tap of a convolution sees x: zeros that pad x are not s 0 + t. Grouped weights are taken
apart into (group, out, in), because there a group's outputs see that group's inputs alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from openclaw.graph.passes.affine import Affine, Exact, of_node
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.values import input_of, real_constant, sole_reader

OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm"})

Real = npt.NDArray[np.float32 | np.float64]

_ROUNDING = 1e-6
_TINY = float(np.finfo(np.float32).tiny)
_SHIFT = 256.0
"""A shift far larger than 1 loses the digits of what is left when data nearly cancels it."""


@dataclass(frozen=True)
class Linear:
    """One node with constant weights, and its weights in 64 bits.

    Attributes:
        node: a Conv, ConvTranspose or Gemm.
        weight: of shape (group, outputs of a group, inputs of a group, taps).
        bias: of shape (outputs,); for a Gemm whatever broadcasts to its result.
        dtype: of the node's tensors.
    """

    node: ir.Node
    weight: Exact
    bias: Exact
    dtype: np.dtype[np.float32 | np.float64]

    @property
    def outputs(self) -> int:
        return int(self.weight.shape[0] * self.weight.shape[1])

    @property
    def inputs(self) -> int:
        return int(self.weight.shape[0] * self.weight.shape[2])

    def then(self, affine: Affine) -> Linear | None:
        """With ``affine`` on its outputs."""
        if not affine.fits(self.outputs):
            return None
        scale, shift = affine.spread(self.outputs)
        with np.errstate(all="ignore"):
            weight = self.weight * scale.reshape(*self.weight.shape[:2], 1, 1)
            return Linear(self.node, weight, self.bias * scale + shift, self.dtype)

    def behind(self, affine: Affine) -> Linear | None:
        """With ``affine`` on its inputs; the caller sees to padding."""
        if not affine.fits(self.inputs) or np.abs(affine.shift).max(initial=0.0) > _SHIFT:
            return None
        scale, shift = (part.reshape(self.weight.shape[0], 1, -1, 1) for part in affine.spread(self.inputs))
        with np.errstate(all="ignore"):
            added = (self.weight * shift).sum(axis=(2, 3)).reshape(-1)
            if self.node.op_type == "Gemm":
                added = added * self.node.attributes.get_float("alpha", 1.0)
            return Linear(self.node, self.weight * scale, self.bias + added, self.dtype)

    def rounded(self) -> tuple[Real, Real] | None:
        """Weight, in the node's layout, and bias, in the node's type; None if they overflow, or vanish as a whole."""
        weight = round_to(_laid_out(self.node, self.weight, taps=self._taps()), self.dtype)
        bias = round_to(self.bias, self.dtype, absolute=_TINY)
        return None if weight is None or bias is None else (weight, bias)

    def _taps(self) -> tuple[int, ...]:
        weight = real_constant(self.node.inputs[1])
        return () if weight is None or self.node.op_type == "Gemm" else weight.shape[2:]

    def build(self, editor: Editor, source: ir.Value | None) -> ir.Node | None:
        """A node like :attr:`node` with these weights, reading ``source``; None if they cannot be rounded."""
        parts = self.rounded()
        if parts is None or self.node.inputs[1] is None:
            return None
        weight, bias = parts
        name = self.node.inputs[1].name or "weight"
        inputs = [
            source,
            editor.constant(weight, f"{name}_folded", near=self.node),
        ]
        if bias.any() or self.node.op_type == "Gemm" or input_of(self.node, 2) is not None:
            inputs.append(editor.constant(bias, f"{name}_bias", near=self.node))
        # A Gemm's beta is in the bias already.
        attributes = {key: value for key, value in self.node.attributes.items() if key != "beta"}
        return editor.node(self.node.op_type, inputs, attributes=attributes, like=self.node)


def round_to(exact: Exact, dtype: np.dtype[np.float32 | np.float64], *, absolute: float = 0.0) -> Real | None:
    """``exact`` in ``dtype``, or None if that overflows, or if the whole tensor is so small that digits are lost.

    ``absolute`` is an error that does not count.
    """
    with np.errstate(all="ignore"):
        rounded = exact.astype(dtype)
        if not np.isfinite(rounded).all():
            return None
        error = np.abs(rounded - exact).max(initial=0.0)
    return rounded if error <= absolute + _ROUNDING * np.abs(exact).max(initial=0.0) else None


def read(node: ir.Node | None) -> Linear | None:
    """The weights of a Conv, ConvTranspose or Gemm, if they are constants of 32 or 64 bits."""
    if node is None or node.domain != "" or node.op_type not in OPERATORS:
        return None
    weight = real_constant(input_of(node, 1))
    given = input_of(node, 2)
    bias = real_constant(given)
    if weight is None or (given is not None and bias is None):
        return None
    grouped = _grouped(node, weight)
    if grouped is None:
        return None
    outputs = grouped.shape[0] * grouped.shape[1]
    exact = np.zeros(outputs) if bias is None else bias.astype(np.float64)
    if node.op_type == "Gemm":
        exact = exact * node.attributes.get_float("beta", 1.0)
        if exact.ndim > 2 or (exact.ndim > 0 and exact.shape[-1] not in (1, outputs)):
            return None
    elif exact.shape != (outputs,):
        return None
    return Linear(node, grouped, exact, weight.dtype)


def _grouped(node: ir.Node, weight: Real) -> Exact | None:
    """Weights as (group, outputs of a group, inputs of a group, taps)."""
    exact = weight.astype(np.float64)
    if node.op_type == "Gemm":
        if weight.ndim != 2:
            return None
        return (exact if node.attributes.get_int("transB", 0) else exact.T)[None, :, :, None]
    group = node.attributes.get_int("group", 1)
    if weight.ndim < 3 or group < 1 or weight.shape[0] % group or 0 in weight.shape:
        return None
    apart = exact.reshape(group, weight.shape[0] // group, weight.shape[1], -1)
    return apart if node.op_type == "Conv" else apart.transpose(0, 2, 1, 3)


def _laid_out(node: ir.Node, grouped: Exact, *, taps: tuple[int, ...]) -> Exact:
    """The inverse of :func:`_grouped`."""
    if node.op_type == "Gemm":
        matrix = grouped[0, :, :, 0]
        return matrix if node.attributes.get_int("transB", 0) else matrix.T
    apart = grouped if node.op_type == "Conv" else grouped.transpose(0, 2, 1, 3)
    return apart.reshape(-1, apart.shape[2], *taps)


def convolved_by(value: ir.Value) -> list[ir.Node]:
    """The Convs that read ``value`` as their data, in its graph; none if anybody else reads it."""
    uses = value.uses()
    others = [
        node
        for node, index in uses
        if node.op_type != "Conv" or node.domain != "" or index != 0 or node.graph is not value.graph
    ]
    return [] if others or value.is_graph_output() else [node for node, _ in uses]


def pads(conv: ir.Node) -> bool:
    """Whether a Conv may see zeros around its input."""
    weight = real_constant(conv.inputs[1])
    if conv.attributes.get_string("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        # One tap never reaches beyond the input.
        return weight is None or any(size != 1 for size in weight.shape[2:])
    return any(conv.attributes.get_ints("pads", ()))


def fold_into(node: ir.Node, before: ir.Node | None, editor: Editor, *, rank: int) -> bool:
    """Folds ``node``, a per-channel map, into the linear node ``before`` it; whether it did.

    Args:
        node: which reads the result of ``before``, a tensor of ``rank`` whose channels are its axis 1.
        before: a Conv, ConvTranspose or Gemm that nobody else reads; anything else is left alone.
        editor: of their model.
        rank: as said.
    """
    if before is None or sole_reader(before.outputs[0]) is not node:
        return False
    change = of_node(node, before.outputs[0], rank=rank)
    layer = None if change is None else read(before)
    folded = None if change is None or layer is None else layer.then(change)
    fused = None if folded is None else folded.build(editor, before.inputs[0])
    if fused is None:
        return False
    editor.replace([before, node], [fused], results={node.outputs[0]: fused.outputs[0]})
    return True
