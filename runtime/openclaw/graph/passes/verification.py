"""What must hold before and after every pass, and what of a model no pass may change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class Interface:
    """A model from outside: names and element types of its inputs and outputs, in order."""

    inputs: tuple[tuple[str, ir.DataType | None], ...]
    outputs: tuple[tuple[str, ir.DataType | None], ...]


def interface_of(model: ir.Model) -> Interface:
    """What callers of the model see of it."""
    return Interface(
        tuple((value.name or "", value.dtype) for value in model.graph.inputs),
        tuple((value.name or "", value.dtype) for value in model.graph.outputs),
    )


def check_interface(model: ir.Model, before: Interface) -> None:
    """Raises ``PostconditionError`` if inputs or outputs differ from ``before``, but for types that were unknown."""
    after = interface_of(model)
    for kind, was, now in (("inputs", before.inputs, after.inputs), ("outputs", before.outputs, after.outputs)):
        same = len(was) == len(now) and all(
            name == other and dtype in (None, found) for (name, dtype), (other, found) in zip(was, now, strict=True)
        )
        if not same:
            raise ir.passes.PostconditionError(f"the model's {kind} changed from {was} to {now}")


def check_graph(model: ir.Model) -> None:
    """Raises ``PostconditionError`` unless the invariants hold.

    Every value has one name, unique in its graph and those around it; every node reads what is defined before it, in
    its graph or one around it; outputs are defined; initializers have their data.
    """
    _Scope({}, {}).check(model.graph)


def nested(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs that are attributes of a node: branches of an If, the body of a Loop or Scan."""
    for attribute in node.attributes.values():
        if not attribute.is_ref() and attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif not attribute.is_ref() and attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


class _Scope:
    """The values that are visible at one point of a walk through nested graphs."""

    def __init__(self, names: dict[str, ir.Value], defined: dict[ir.Value, None]) -> None:
        self._names = names
        self._defined = defined

    def check(self, graph: ir.Graph) -> None:
        for value in graph.inputs:
            self._define(value, f"input of graph {graph.name!r}")
        for value in graph.initializers.values():
            if value.const_value is None:
                raise ir.passes.PostconditionError(f"initializer {value.name!r} has no data")
            if not value.is_graph_input():
                self._define(value, f"initializer of graph {graph.name!r}")
        for node in graph:
            self._check_node(node, graph)
        for value in graph.outputs:
            if value not in self._defined:
                raise ir.passes.PostconditionError(f"output {value.name!r} of graph {graph.name!r} is defined nowhere")

    def _check_node(self, node: ir.Node, graph: ir.Graph) -> None:
        if node.graph is not graph:
            raise ir.passes.PostconditionError(f"node {node.name!r} does not know its graph {graph.name!r}")
        for value in node.inputs:
            if value is not None and value not in self._defined:
                raise ir.passes.PostconditionError(
                    f"node {node.name!r} ({node.op_type}) reads {value.name!r}, which is not defined before it"
                )
        for inner in nested(node):
            _Scope(dict(self._names), dict(self._defined)).check(inner)
        for value in node.outputs:
            if value.name != "":
                self._define(value, f"output of node {node.name!r} ({node.op_type})")

    def _define(self, value: ir.Value, what: str) -> None:
        if not value.name:
            raise ir.passes.PostconditionError(f"an {what} has no name")
        if value.name in self._names:
            raise ir.passes.PostconditionError(f"the name {value.name!r}, {what}, is taken twice")
        self._names[value.name] = value
        self._defined[value] = None
