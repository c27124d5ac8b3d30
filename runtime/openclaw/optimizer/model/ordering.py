"""The order of a graph's nodes: each after those whose outputs it, or a graph nested in it, reads."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import onnx

from openclaw.errors import ModelInvalid
from openclaw.optimizer.model.contents import nested


def ordered(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto] | None:
    """The nodes in an order that runs; None: they are in one already.

    Raises:
        ModelInvalid: there is none, because nodes of the model ``name`` wait for each other.
    """
    nodes = list(graph.node)
    maker = {output: index for index, node in enumerate(nodes) for output in node.output if output}
    after = {index: {maker[read] for read in _reads(node) if read in maker} for index, node in enumerate(nodes)}
    if all(before < index for index, befores in after.items() for before in befores):
        return None
    try:
        return [nodes[index] for index in TopologicalSorter(after).static_order()]
    except CycleError as error:
        cycle = " <- ".join(_label(nodes[index]) for index in error.args[1][:6])
        raise ModelInvalid(f"{name} has a cycle, so it can never run: {cycle}") from error


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for inner in nested(node):
        # A name that the nested graph makes itself shadows the outer one.
        own = {value.name for value in inner.input} | {output for inside in inner.node for output in inside.output}
        for inside in inner.node:
            yield from (read for read in _reads(inside) if read not in own)
        yield from (value.name for value in inner.output if value.name not in own)


def _label(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name or ', '.join(node.output)!r}"
