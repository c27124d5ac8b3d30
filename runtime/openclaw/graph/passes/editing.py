"""Replacing nodes of a graph without breaking names, uses or outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from openclaw.graph.passes.symbolic import Shapes
from openclaw.graph.passes.values import Array

Attribute = int | float | str | Sequence[int] | Sequence[float]


class Editor:
    """Changes one model; names that it gives are unique over all nested graphs.

    What it finds out about the model it keeps, for all passes that are given it, until :meth:`forget_findings`.

    Attributes:
        model: what is changed.
        opset: version of the default domain.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.opset = model.opset_imports.get("", 0)
        self._names: set[str] | None = None
        self._shapes: Shapes | None = None

    @property
    def shapes(self) -> Shapes:
        """The shapes in the model, as they were when it was first asked after the last change of an earlier pass."""
        if self._shapes is None:
            self._shapes = Shapes(self.model)
        return self._shapes

    def forget_findings(self) -> None:
        """Makes what is asked from now on be found out again: a pass has changed the model."""
        self._names, self._shapes = None, None
        self.opset = self.model.opset_imports.get("", 0)

    def name(self, wish: str) -> str:
        """``wish``, or ``wish`` with a number where a value or node is already called so."""
        if self._names is None:
            self._names = set(_names(self.model))
        unique, number = wish, 1
        while unique in self._names:
            unique, number = f"{wish}_{number}", number + 1
        self._names.add(unique)
        return unique

    def constant(self, array: Array, name: str, *, near: ir.Node) -> ir.Value:
        """A new initializer of the graph that ``near`` is in."""
        if near.graph is None:
            raise ValueError(f"node {near.name!r} is in no graph")
        unique = self.name(name)
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=unique)
        value = ir.Value(name=unique, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
        near.graph.register_initializer(value)
        return value

    def node(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        *,
        attributes: Mapping[str, Attribute | ir.Attr] | None = None,
        like: ir.Node,
        outputs: int = 1,
        beside: bool = False,
        domain: str = "",
    ) -> ir.Node:
        """A new node, not yet in a graph; it stands for ``like`` and keeps its metadata.

        It is also called like it, if it is of the same operator and not ``beside`` it in the end.
        """
        base = like.name or like.op_type
        takes_name = operator == like.op_type and like.name and not beside
        given = attributes or {}
        return ir.Node(
            domain,
            operator,
            inputs,
            [
                value if isinstance(value, ir.Attr) else ir.convenience.convert_attribute(key, value)
                for key, value in given.items()
            ],
            name=like.name if takes_name else self.name(f"{base}/{operator}"),
            outputs=[ir.Value(name=self.name(f"{base}/{operator}_out")) for _ in range(outputs)],
            metadata_props=dict(like.metadata_props),
        )

    def replace(self, old: Sequence[ir.Node], new: Sequence[ir.Node], *, results: Mapping[ir.Value, ir.Value]) -> None:
        """Puts ``new`` in the place of ``old``, which all are in one graph.

        Args:
            old: in the graph's order; the new nodes stand where its last one stood. Initializers that only they read
                are removed.
            new: in order.
            results: the new value for every value of ``old`` that somebody else reads. It takes over the old one's
                name, type and shape, so the model's outputs keep their names.
        """
        graph = old[-1].graph
        if not isinstance(graph, ir.Graph):
            raise ValueError(f"node {old[-1].name!r} is in no graph")
        read = [value for node in old for value in node.inputs if value is not None]
        ir.convenience.replace_nodes_and_values(graph, old[-1], old, new, tuple(results), tuple(results.values()))
        self.forget(read)

    def replace_constant(self, node: ir.Node, place: int, array: Array, *, name: str) -> None:
        """Has a node read another constant at ``place``; the initializer that only it read there is removed."""
        old = node.inputs[place]
        node.replace_input_with(place, self.constant(array, name, near=node))
        self.forget([] if old is None else [old])

    def forget(self, values: Iterable[ir.Value]) -> None:
        """Removes those of ``values`` that are initializers which nobody reads any more."""
        for value in values:
            if value.is_initializer() and not (value.uses() or value.is_graph_input() or value.is_graph_output()):
                graph = value.graph
                if isinstance(graph, ir.Graph) and value.name is not None:
                    graph.initializers.pop(value.name, None)


def _names(model: ir.Model) -> Iterator[str]:
    for graph in model.graphs():
        for value in (*graph.inputs, *graph.initializers.values()):
            yield value.name or ""
        for node in graph:
            yield node.name or ""
            yield from (output.name or "" for output in node.outputs)
