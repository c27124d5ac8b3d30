"""A map per channel, then Conv, as one convolution: input scaling, and BatchNormalization before activation.

    z = s x + t,   y = W * z + b       y = (W s) * x + (b + sum over taps and inputs of W t)

A convolution that pads sees z = 0 beyond the border, where s x + t would be t. So with padding
- t = 0 (x / 255) is exact as it stands;
- otherwise a chain of maps, (x / 255 - mean) / std, becomes one Add and the scale goes into the weights:
  s x + t = s (x + t / s), and the zeros outside are s 0.
Several convolutions may read z, if each can take the map in.

The chain's maps are taken as one: (x / a - m) / d is s = 1 / (a d), t = -m / d. A shift beyond 256 is left where it is:
data that nearly cancels it would lose its digits in the sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes import affine, linear
from openclaw.graph.passes.affine import Affine
from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.values import rank_of, real_constant, sole_reader


@dataclass(frozen=True)
class _Chain:
    """Maps in a row.

    Attributes:
        source: what the first one reads.
        nodes: in order.
        map: all of them, as one.
    """

    source: ir.Value
    nodes: tuple[ir.Node, ...]
    map: Affine


class _IntoConv(NodePass):
    needs_shapes = True

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Folds the chain of maps that ends in ``node`` if all that read it are convolutions that can take it in."""
        convs = linear.convolved_by(node.outputs[0])
        if not convs:
            return False
        layers = [layer for layer in map(linear.read, convs) if layer is not None]
        if len(layers) != len(convs) or len({layer.inputs for layer in layers}) != 1:
            return False
        chain = _chain(node, rank=_rank(convs[0]), channels=layers[0].inputs)
        if chain is None or not ({one.op_type for one in chain.nodes} & self.operators):
            return False
        if not chain.map.shift.any() or not any(map(linear.pads, convs)):
            return _absorb(chain, layers, editor)
        return len(chain.nodes) > 1 and bool(chain.map.scale.all()) and _absorb_scale(chain, layers, editor)


class BatchNormConv(_IntoConv):
    """Folds a BatchNormalization into the convolutions after it."""

    name = "batchnorm-conv"
    operators = frozenset({"BatchNormalization"})


class AffineConv(_IntoConv):
    """Folds Add, Sub, Mul and Div with a constant per channel into the convolutions after them."""

    name = "affine-conv"
    operators = affine.ARITHMETIC


def _rank(conv: ir.Node) -> int:
    weight = real_constant(conv.inputs[1])
    return 0 if weight is None else weight.ndim


def _chain(last: ir.Node, *, rank: int, channels: int) -> _Chain | None:
    """The longest run of maps that ends in ``last`` and that nobody reads in between."""
    nodes: list[ir.Node] = []
    whole: Affine | None = None
    node: ir.Node | None = last
    source = None
    while node is not None and (not nodes or sole_reader(node.outputs[0]) is nodes[0]):
        found = _step(node, rank=rank, channels=channels)
        if found is None:
            break
        source, change = found
        whole = change if whole is None else whole.after(change)
        nodes.insert(0, node)
        node = source.producer()
    if whole is None or source is None or not whole.finite:
        return None
    return _Chain(source, tuple(nodes), whole)


def _step(node: ir.Node, *, rank: int, channels: int) -> tuple[ir.Value, Affine] | None:
    """What ``node`` maps, and how, if it maps a tensor of that rank and that many channels to one of the same shape."""
    if node.op_type not in affine.OPERATORS:
        return None
    for value in node.inputs[:1] if node.op_type == "BatchNormalization" else node.inputs:
        if value is None or rank_of(value) != rank:
            continue
        change = affine.of_node(node, value, rank=rank)
        if change is not None and change.fits(channels) and _keeps_channels(value, change, channels):
            return value, change
    return None


def _keeps_channels(value: ir.Value, change: Affine, channels: int) -> bool:
    """Whether a constant with one element per channel does not widen a value with a single channel."""
    alike = change.scale.shape == () == change.shift.shape
    return alike or (value.shape is not None and value.shape[1] == channels)


def _absorb(chain: _Chain, layers: list[linear.Linear], editor: Editor) -> bool:
    """Gives the chain's map to the convolutions, and lets them read what the chain reads."""
    folded = [layer.behind(chain.map) for layer in layers]
    if any(layer is None or layer.rounded() is None for layer in folded):
        return False
    for layer in folded:
        fused = None if layer is None else layer.build(editor, chain.source)
        if layer is None or fused is None:
            raise ValueError(f"weights of {chain.nodes[-1].name!r}'s readers could be rounded, and now cannot")
        editor.replace([layer.node], [fused], results={layer.node.outputs[0]: fused.outputs[0]})
    for node in reversed(chain.nodes):
        editor.replace([node], [], results={})
    return True


def _absorb_scale(chain: _Chain, layers: list[linear.Linear], editor: Editor) -> bool:
    """Leaves of the chain an Add, and gives its scale to the convolutions."""
    dtype = layers[0].dtype
    with np.errstate(all="ignore"):
        added = linear.round_to(np.asarray(chain.map.shift / chain.map.scale), dtype)
    scale = Affine(chain.map.scale, np.zeros(()))
    if added is None or any(
        layer is None or layer.rounded() is None for layer in (one.behind(scale) for one in layers)
    ):
        return False
    last = chain.nodes[-1]
    rank = _rank(layers[0].node)
    constant = added.reshape(1, -1, *(1,) * (rank - 2)) if added.ndim else added
    add = editor.node(
        "Add",
        [chain.source, editor.constant(constant, f"{last.outputs[0].name}_shift", near=last)],
        like=last,
        beside=True,
    )
    add.outputs[0].type, add.outputs[0].shape = last.outputs[0].type, chain.source.shape
    if last.graph is None:
        raise ValueError(f"node {last.name!r} is in no graph")
    last.graph.insert_before(last, add)
    return _absorb(_Chain(add.outputs[0], chain.nodes, scale), layers, editor)
