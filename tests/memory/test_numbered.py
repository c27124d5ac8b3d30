"""The quick way to lifetimes gives what the plain one does, in every order, and is quick."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.plain_lifetimes import plain_buffers
from memory.test_lifetimes import flows
from openclaw.graph.lifetimes import Dataflow, Step
from openclaw.memory.blocks import blocks
from openclaw.memory.numbered import Numbered


def an_order(flow: Dataflow, seed: int) -> list[int]:
    """An order in which every step finds what it reads."""
    random, left, order = Random(seed), list(range(len(flow.steps))), []
    makers = {name: number for number, step in enumerate(flow.steps) for name in step.makes}
    while left:
        step = random.choice(
            [each for each in left if not {makers.get(name) for name in flow.steps[each].uses} & {*left}]
        )
        left.remove(step)
        order.append(step)
    return order


@given(flows(), st.integers(0, 1000), st.sampled_from([1, 64]))
def test_buffers_and_their_bound_are_those_of_the_plain_way_in_any_order(
    flow: Dataflow, seed: int, alignment: int
) -> None:
    graph = Numbered(flow)
    for order in (graph.own, an_order(flow, seed)):
        plain = plain_buffers(flow, order)
        assert graph.buffers(order) == plain
        assert graph.bound(order, alignment=alignment) == blocks([b for b in plain if b.size], alignment).bound


@pytest.mark.parametrize(
    "flow",
    [
        Dataflow([], {}),
        Dataflow([Step(("in",), ())], {}),
        Dataflow([Step(("in",), ("view",))], {"view": 8}, aliases=[("view", "in")]),
        Dataflow([Step(("", "in"), ("a", "")), Step(("a", "a", ""), ("b", "c"))], {"a": 4, "b": 4, "c": 2}),
        Dataflow(
            [Step((), ("a", "b")), Step(("a", "b"), ("c", "d"))],
            dict.fromkeys("abcd", 8),
            in_place=[("c", "b"), ("d", "b"), ("d", "a"), ("c", "a")],
            kept=frozenset({"d", "nowhere"}),
        ),
    ],
    ids=["no steps", "nothing made", "only views of an input", "names left out", "several outputs"],
)
def test_odd_graphs_have_the_buffers_of_the_plain_way(flow: Dataflow) -> None:
    graph = Numbered(flow)
    assert graph.buffers(graph.own) == plain_buffers(flow)
