"""What is known of a value in a graph: the constant that it is, who makes it and who reads it, its rank."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[np.generic]

REAL = {ir.DataType.FLOAT: np.float32, ir.DataType.DOUBLE: np.float64}
"""Types in which a constant can be folded into another within the promised tolerance; 16 bits round too coarsely."""


def constant(value: ir.Value | None) -> Array | None:
    """What ``value`` always is: an initializer that no caller can override, or a Constant node's output; else None."""
    tensor = constant_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy())


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The same, before its elements are read: they may be many, and only shape and type be of interest."""
    if value is None or value.is_graph_input():
        return None
    if value.is_initializer():
        return value.const_value
    producer = value.producer()
    if producer is None or producer.op_type != "Constant" or producer.domain != "" or len(producer.attributes) != 1:
        return None
    return ir.convenience.get_const_tensor(value)


def real_constant(value: ir.Value | None) -> npt.NDArray[np.float32 | np.float64] | None:
    """A constant of 32 or 64 bit floating point, else None."""
    tensor = constant_tensor(value)
    return None if tensor is None or tensor.dtype not in REAL else np.asarray(tensor.numpy())


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """An input of a node; None if it is left out or empty."""
    return node.inputs[index] if index < len(node.inputs) else None


def producer_of(value: ir.Value | None, *operators: str) -> ir.Node | None:
    """The node of the default domain that makes ``value``, if it is one of ``operators``."""
    node = None if value is None else value.producer()
    return node if node is not None and node.domain == "" and node.op_type in operators else None


def sole_reader(value: ir.Value) -> ir.Node | None:
    """The one node of the same graph that reads ``value``, once; None if it has more uses or is an output."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = next(iter(uses)).node
    return node if node.graph is value.graph else None


def rank_of(value: ir.Value | None) -> int | None:
    """How many dimensions a value has, if that is known."""
    return None if value is None or value.shape is None else len(value.shape)
