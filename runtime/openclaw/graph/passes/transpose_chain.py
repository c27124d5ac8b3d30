"""Two Transposes in a row are one, or none where the second undoes the first.

    Transpose(Transpose(x, p), q)  =  Transpose(x, [p[i] for i in q])

A Transpose without ``perm`` turns all axes round. Where others read what the first one makes, two are only joined if
nothing is left of them: another Transpose would be no less work.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from openclaw.graph.passes.contract import NodePass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.matching import integers, made_by
from openclaw.graph.passes.no_operation import bypass
from openclaw.graph.passes.symbolic import Shapes
from openclaw.graph.passes.values import sole_reader


class TransposeChain(NodePass):
    """Joins Transposes that follow each other."""

    name = "transpose-chain"
    operators = frozenset({"Transpose"})

    def visit(self, node: ir.Node, editor: Editor) -> bool:
        """Joins ``node`` with the Transpose that it reads, if there is one."""
        first = made_by(node.inputs[0], "Transpose")
        if first is None or first.graph is not node.graph or first.inputs[0] is None:
            return False
        orders = _orders(first, node, editor.shapes)
        if orders is None:
            return False
        order = [orders[0][axis] for axis in orders[1]]
        alone = sole_reader(first.outputs[0]) is node
        kept = order != sorted(order)
        if kept and not alone:
            return False
        new = editor.node("Transpose", [first.inputs[0]], attributes={"perm": order}, like=node)
        old = [first, node] if alone else [node]
        editor.replace(old, [new], results={node.outputs[0]: new.outputs[0]})
        if not kept:
            # Between an input and an output of the model one node has to stay.
            bypass(new, editor)
        return True


def _orders(first: ir.Node, second: ir.Node, shapes: Shapes) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The orders of axes of both; None where not even their number is known."""
    told = [integers(node, "perm") for node in (first, second)]
    rank = next(_ranks(first, told, shapes), None)
    if rank is None:
        return None
    reverse = tuple(reversed(range(rank)))
    before, after = (reverse if order is None else order for order in told)
    return before, after


def _ranks(first: ir.Node, told: list[tuple[int, ...] | None], shapes: Shapes) -> Iterator[int]:
    yield from (len(order) for order in told if order is not None)
    dims = shapes.dims(first.inputs[0])
    if dims is not None:
        yield len(dims)
