"""Transposes in a row: what is left of them, and where they must stay."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph.building import Drawing
from graph.oracle import assert_lossless, operators

ALONE = ["transpose-chain"]


def chain(*orders: tuple[int, ...] | None, sizes: tuple[int | str, ...] = ("N", 2, 3, 4)) -> onnx.ModelProto:
    """Transposes between an Exp and a Neg; None: without an order."""
    draw = Drawing()
    y = draw.add("Exp", draw.input("x", sizes))
    for order in orders:
        y = draw.add("Transpose", y) if order is None else draw.add("Transpose", y, perm=list(order))
    return draw.model(draw.add("Neg", y))


def order_of(model: onnx.ModelProto) -> list[int]:
    (node,) = [node for node in model.graph.node if node.op_type == "Transpose"]
    return list(node.attribute[0].ints)


def test_one_that_undoes_the_one_before_leaves_nothing() -> None:
    found, counts = assert_lossless(chain((0, 2, 3, 1), (0, 3, 1, 2)), only=ALONE)
    assert operators(found) == ["Exp", "Neg"]
    assert counts == {"transpose-chain": 1}


def test_two_in_a_row_are_one_with_both_orders() -> None:
    found, _ = assert_lossless(chain((0, 2, 3, 1), (1, 0, 2, 3)), only=ALONE)
    assert operators(found) == ["Exp", "Transpose", "Neg"]
    assert order_of(found) == [2, 0, 3, 1]


@pytest.mark.parametrize("orders", list(itertools.product([None, (1, 0, 2), (2, 0, 1)], repeat=2)))
def test_one_without_an_order_turns_all_axes_round(orders: tuple[tuple[int, ...] | None, ...]) -> None:
    found, _ = assert_lossless(chain(*orders, sizes=("N", 2, 3)), only=ALONE)
    assert operators(found).count("Transpose") == (0 if orders == (None, None) or orders == ((1, 0, 2),) * 2 else 1)


@settings(deadline=None, max_examples=30)
@given(orders=st.lists(st.permutations(range(4)).map(tuple), min_size=1, max_size=5))
def test_however_many_there_are_at_most_one_is_left(orders: list[tuple[int, ...]]) -> None:
    found, _ = assert_lossless(chain(*orders))
    assert operators(found).count("Transpose") <= 1


def test_one_that_others_read_is_only_passed_by_where_nothing_is_left_to_do() -> None:
    draw = Drawing()
    x = draw.add("Exp", draw.input("x", ["N", 2, 3]))
    first = draw.add("Transpose", x, perm=[2, 0, 1])
    undone, further = draw.add("Transpose", first, perm=[1, 2, 0]), draw.add("Transpose", first, perm=[1, 0, 2])
    model = draw.model(draw.add("Neg", first), draw.add("Neg", undone), draw.add("Abs", further))
    found, counts = assert_lossless(model, only=ALONE)
    assert counts == {"transpose-chain": 1}
    assert operators(found) == ["Exp", "Transpose", "Transpose", "Neg", "Neg", "Abs"]


def test_outputs_keep_their_names_and_their_own_nodes() -> None:
    draw = Drawing()
    x = draw.input("x", ["N", 2, 3])
    first = draw.add("Transpose", x, perm=[0, 2, 1])
    model = draw.model(first, draw.add("Transpose", first, perm=[0, 2, 1]))
    found, _ = assert_lossless(model)
    assert operators(found) == ["Transpose", "Transpose"]
    assert [output.name for output in found.graph.output] == [output.name for output in model.graph.output]


def test_between_an_input_and_an_output_one_node_stays() -> None:
    draw = Drawing()
    y = draw.add("Transpose", draw.add("Transpose", draw.input("x", ["N", 2, 3]), perm=[0, 2, 1]), perm=[0, 2, 1])
    found, _ = assert_lossless(draw.model(y))
    assert len(found.graph.node) == 1


def test_one_in_a_branch_that_undoes_one_outside_stays() -> None:
    inner = Drawing(prefix="yes")
    branch = inner.body(inner.add("Transpose", "turned", perm=[1, 0]))
    other = Drawing(prefix="no")
    alternative = other.body(other.add("Neg", "x"))
    draw = Drawing()
    x, chosen = draw.input("x", [3, 2]), draw.input("chosen", [], np.bool_)
    draw.add("Transpose", x, perm=[1, 0])
    draw._nodes[-1].output[0] = "turned"
    assert_lossless(draw.model(draw.add("If", chosen, then_branch=branch, else_branch=alternative)))
