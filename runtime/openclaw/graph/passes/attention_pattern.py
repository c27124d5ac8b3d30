"""Finds scaled dot-product attention around a Softmax, and proves that it is that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from openclaw.graph.passes.dimensions import Dim, same, same_shape
from openclaw.graph.passes.matching import integer, integers, made_by, operands, scalar
from openclaw.graph.passes.symbolic import Shapes
from openclaw.graph.passes.values import producer_of

LOWEST = -1e30
"""A score added to a number at or below this is lost in rounding."""


@dataclass(frozen=True)
class Side:
    """Keys or values: where they come from, the cache before them, and the cache with them.

    Attributes:
        source: of shape (batch, length, heads * size).
        length: of ``source``.
        past: of shape (batch, heads, past, size).
        present: ``past`` and ``source`` together, if anybody but this attention reads that.
        nodes: between ``source`` and the product.
    """

    source: ir.Value
    length: Dim
    past: ir.Value | None
    present: ir.Value | None
    nodes: tuple[ir.Node, ...]


@dataclass(frozen=True)
class Masking:
    """What happens to scores between product and Softmax."""

    added: ir.Value | None = None
    condition: ir.Value | None = None
    keeps: bool = True
    low: float = 0.0


@dataclass(frozen=True)
class Found:
    """An attention: its inputs, and the nodes that it is written in; ``root`` makes the result."""

    query: ir.Value
    key: Side
    value: Side
    heads: int
    scale: float
    masking: Masking
    queries: Dim
    keys: Dim
    root: ir.Node
    nodes: tuple[ir.Node, ...]


@dataclass
class _Scores:
    """The way from the Softmax back to the product."""

    product: ir.Node
    scale: float
    masking: Masking
    nodes: list[ir.Node] = field(default_factory=list)


def find(softmax: ir.Node, shapes: Shapes) -> Found | None:
    """The attention that ``softmax`` is part of, or None."""
    scores, joined = _scores(softmax, shapes), _joined(softmax, shapes)
    if scores is None or joined is None:
        return None
    mixed, values, after = joined
    query, transposed = scores.product.inputs
    q_scale, query, q_nodes = _scaled(query)
    k_scale, transposed, k_nodes = _scaled(transposed)
    parted = _parted(query, shapes, order=(0, 2, 1, 3))
    key, value = _key(transposed, shapes), _side(values, shapes)
    if parted is None or key is None or value is None:
        return None
    nodes = (
        *scores.nodes,
        softmax,
        *after,
        *q_nodes,
        *k_nodes,
        *parted.nodes,
        *key.nodes,
        *value.nodes,
        scores.product,
    )
    found = _assembled(mixed, (parted, key, value), scores, shapes=shapes, scale=scores.scale * q_scale * k_scale)
    if found is None:
        return None
    if _depends([scores.masking.added, scores.masking.condition], nodes):
        return None
    complete = Found(**{**vars(found), "nodes": tuple(dict.fromkeys((*nodes, found.root)))})
    return complete if _alone(complete) else None


def _depends(values: Sequence[ir.Value | None], nodes: Sequence[ir.Node]) -> bool:
    """Whether a mask is made from what the attention computes, the length of its cache say: it would read itself."""
    inside, seen = set(nodes), set[ir.Node]()
    waiting = [node for value in values if value is not None and (node := value.producer()) is not None]
    while waiting:
        node = waiting.pop()
        if node in inside:
            return True
        if node not in seen:
            seen.add(node)
            waiting += node.predecessors()
    return False


def _alone(found: Found) -> bool:
    """Whether nobody reads what is inside, but the result and the caches."""
    presents = [side.present for side in (found.key, found.value) if side.present is not None]
    joins = {value.producer() for value in presents}
    if len(presents) == 1 or any(node.graph is not found.root.graph for node in found.nodes):
        return False
    inside = set(found.nodes)
    hidden = [value for node in found.nodes if node is not found.root and node not in joins for value in node.outputs]
    return not any(value.is_graph_output() or any(use.node not in inside for use in value.uses()) for value in hidden)


def _assembled(
    root: ir.Node, sides: tuple[Side, Side, Side], scores: _Scores, *, shapes: Shapes, scale: float
) -> Found | None:
    query, key, value = sides
    grid, result = shapes.dims(scores.product.outputs[0]), shapes.dims(root.outputs[0])
    widths = [shapes.dims(side.source) for side in sides]
    if grid is None or result is None or len(grid) != 4 or any(dims is None or len(dims) != 3 for dims in widths):
        return None
    (batch, heads, queries, keys), known = grid, [dims for dims in widths if dims is not None]
    if not isinstance(heads, int) or not all(same(dims[0], batch) for dims in known) or scale == 0:
        return None
    if not same(known[1][1], known[2][1]) or not same(known[0][2], known[1][2]):
        return None
    if not same_shape(result, (batch, queries, known[2][2])) or (key.past is None) != (value.past is None):
        return None
    if not all(_fits(mask, grid, shapes) for mask in (scores.masking.added, scores.masking.condition)):
        return None
    if shapes.dtype(query.source) != ir.DataType.FLOAT:
        return None
    return Found(query.source, key, value, heads, scale, scores.masking, queries, keys, root, ())


def _fits(mask: ir.Value | None, grid: tuple[Dim, ...], shapes: Shapes) -> bool:
    """Whether a mask does not widen ``grid``: batch and heads are proved, rows and columns Add has demanded."""
    if mask is None:
        return True
    dims = shapes.dims(mask)
    if dims is None or len(dims) > 4:
        return False
    wide = (1,) * (4 - len(dims)) + dims
    return all(dim == 1 or same(dim, of) for dim, of in zip(wide[:2], grid[:2], strict=True))


def _scores(softmax: ir.Node, shapes: Shapes) -> _Scores | None:
    dims = shapes.dims(softmax.inputs[0])
    if dims is None or len(dims) != 4 or integer(softmax, "axis", -1) not in (-1, 3):
        return None
    value = softmax.inputs[0]
    added, nodes = None, []
    addition = made_by(value, "Add")
    if addition is not None:
        for scores, mask in operands(addition):
            if _leads_to_product(scores):
                value, added = scores, mask
                nodes.append(addition)
                break
    masking = Masking(added)
    choice = made_by(value, "Where")
    if choice is not None:
        chosen = _choice(choice, added)
        if chosen is None:
            return None
        value, masking = chosen
        nodes.append(choice)
    scale, value, between = _scaled(value)
    product = made_by(value, "MatMul")
    return None if product is None else _Scores(product, scale, masking, [*nodes, *between])


def _choice(choice: ir.Node, added: ir.Value | None) -> tuple[ir.Value, Masking] | None:
    condition, first, second = choice.inputs
    for scores, number, keeps in ((first, second, True), (second, first, False)):
        low = scalar(number)
        if low is not None and low <= LOWEST and scores is not None and _leads_to_product(scores):
            return scores, Masking(added, condition, keeps, low)
    return None


def _leads_to_product(value: ir.Value) -> bool:
    """Whether a value is a scaled, perhaps chosen product: scores, and not a mask."""
    choice = made_by(value, "Where")
    if choice is not None:
        return any(_leads_to_product(part) for part in choice.inputs[1:] if part is not None)
    return made_by(_scaled(value)[1], "MatMul") is not None


def _scaled(value: ir.Value | None) -> tuple[float, ir.Value | None, list[ir.Node]]:
    """Takes constant factors off a value."""
    factor, nodes = 1.0, []
    while (node := producer_of(value, "Mul", "Div")) is not None:
        left, right = node.inputs
        number, rest = scalar(right), left
        if number is None and node.op_type == "Mul":
            number, rest = scalar(left), right
        if number is None or number == 0:
            break
        factor = factor * number if node.op_type == "Mul" else factor / number
        nodes.append(node)
        value = rest
    return factor, value, nodes


def _joined(softmax: ir.Node, shapes: Shapes) -> tuple[ir.Node, ir.Value, list[ir.Node]] | None:
    """From the Softmax on: the Reshape that joins the heads, the values that were mixed, and the nodes between."""
    mixing = _reader(softmax, "MatMul")
    transposing = None if mixing is None else _reader(mixing, "Transpose")
    joining = None if transposing is None else _reader(transposing, "Reshape")
    if mixing is None or transposing is None or joining is None or mixing.inputs[0] is not softmax.outputs[0]:
        return None
    parted = shapes.dims(transposing.outputs[0])
    values = mixing.inputs[1]
    if integers(transposing, "perm") != (0, 2, 1, 3) or parted is None or values is None:
        return None
    width = parted[2] * parted[3]
    joined = shapes.dims(joining.outputs[0])
    if joined is None or not same_shape(joined, (parted[0], parted[1], width)):
        return None
    return joining, values, [mixing, transposing]


def _reader(node: ir.Node, operator: str) -> ir.Node | None:
    value = node.outputs[0]
    uses = tuple(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    reader = uses[0].node
    fits = reader.op_type == operator and reader.domain == "" and reader.graph is node.graph
    return reader if fits else None


def _parted(value: ir.Value | None, shapes: Shapes, *, order: tuple[int, ...]) -> Side | None:
    """Matches ``Transpose(Reshape(x, (batch, length, heads, size)), order)``."""
    transposing = made_by(value, "Transpose")
    parting = None if transposing is None else made_by(transposing.inputs[0], "Reshape")
    if transposing is None or parting is None or integers(transposing, "perm") != order:
        return None
    source = parting.inputs[0]
    before, after = shapes.dims(source), shapes.dims(parting.outputs[0])
    if source is None or before is None or after is None or len(before) != 3 or len(after) != 4:
        return None
    if not (same(before[0], after[0]) and same(before[1], after[1]) and same(before[2], after[2] * after[3])):
        return None
    return Side(source, before[1], None, None, (parting, transposing))


def _key(transposed: ir.Value | None, shapes: Shapes) -> Side | None:
    direct = _parted(transposed, shapes, order=(0, 2, 3, 1))
    if direct is not None:
        return direct
    turning = made_by(transposed, "Transpose")
    if turning is None or integers(turning, "perm") != (0, 1, 3, 2):
        return None
    side = _side(turning.inputs[0], shapes)
    if side is None:
        return None
    return Side(side.source, side.length, side.past, side.present, (*side.nodes, turning))


def _side(value: ir.Value | None, shapes: Shapes) -> Side | None:
    """Keys or values in heads, with or without a cache before them."""
    appending = made_by(value, "Concat")
    if appending is None:
        return _parted(value, shapes, order=(0, 2, 1, 3))
    dims = shapes.dims(value)
    if value is None or len(appending.inputs) != 2 or dims is None or len(dims) != 4:
        return None
    new, past = _parted(appending.inputs[1], shapes, order=(0, 2, 1, 3)), appending.inputs[0]
    before = shapes.dims(past)
    if integer(appending, "axis", 0) not in (2, -2) or new is None or before is None or len(before) != 4:
        return None
    if not all(same(before[axis], dims[axis]) for axis in (0, 1, 3)):
        return None
    return Side(new.source, new.length, past, value, (*new.nodes, appending))
