"""Which tensors of a graph can share their bytes, and with that all that its memory depends on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from openclaw.graph.lifetimes import Dataflow, Step
from openclaw.inspection.operators import bodies, every_node, named
from openclaw.inspection.tensors import Tensor

_ALIASES = named("Reshape Squeeze Unsqueeze Flatten Identity Dropout")
"""Their output has the bytes of their first input."""
_OVER_FIRST = named(
    "Relu LeakyRelu Elu Selu Celu Sigmoid HardSigmoid HardSwish Swish Mish Tanh Gelu FastGelu BiasGelu QuickGelu"
    " Softplus Softsign ThresholdedRelu Clip Abs Neg Exp Log Sqrt Reciprocal Erf Floor Ceil Round Sign Not BitwiseNot"
    " Sin Cos Cast BatchNormalization QLinearSigmoid QLinearLeakyRelu"
)
_OVER_ANY = named(
    "Add Sub Mul Div Pow Mod Min Max Sum Mean And Or Xor BitwiseAnd BitwiseOr BitwiseXor PRelu Where QLinearAdd"
    " QLinearMul"
)
"""They compute element by element: an output can be written over an input of its size that nobody needs any more."""


def run_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that run: all but constants, whose tensors are weights by another name."""
    return [node for node in graph.node if node.op_type != "Constant"]


def dataflow(graph: onnx.GraphProto, tensors: Mapping[str, Tensor]) -> Dataflow:
    """The main graph's; its steps are those of ``run_nodes``. A tensor that is not in `tensors` counts no bytes."""
    nodes = run_nodes(graph)
    return Dataflow(
        steps=[Step((*node.input, *_captured(node)), tuple(node.output)) for node in nodes],
        sizes={name: tensor.size for name, tensor in tensors.items()},
        aliases=[(node.output[0], node.input[0]) for node in nodes if node.op_type in _ALIASES],
        in_place=[(node.output[0], name) for node in nodes for name in _overwritten(node)],
        kept=frozenset(each.name for each in graph.output),
    )


def _overwritten(node: onnx.NodeProto) -> list[str]:
    """Inputs that the first output may take the place of."""
    if node.op_type in _OVER_FIRST:
        return list(node.input[:1])
    return [name for name in node.input if name] if node.op_type in _OVER_ANY else []


def _captured(node: onnx.NodeProto) -> Iterator[str]:
    """What the graphs inside a node read from outside; what they make themselves has names of its own."""
    for body in bodies(node):
        for inner in every_node(body):
            yield from inner.input
        yield from (each.name for each in body.output)
