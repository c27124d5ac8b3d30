"""Orders of execution that need less, and plans of graphs."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from memory.oracle import overlaps
from memory.plain_lifetimes import plain_buffers
from openclaw.graph.lifetimes import Dataflow, Step
from openclaw.memory.graphs import plan_graph
from openclaw.memory.numbered import Numbered
from openclaw.memory.scheduling import by_branch, frugal, scheduled


def branches(count: int, *, wide: int = 1000, narrow: int = 10) -> Dataflow:
    """Branches that first widen and then narrow what they read, written down level by level."""
    widen = [Step(("x",), (f"wide{each}",)) for each in range(count)]
    shrink = [Step((f"wide{each}",), (f"narrow{each}",)) for each in range(count)]
    steps = [Step(("in",), ("x",)), *widen, *shrink, Step(tuple(f"narrow{each}" for each in range(count)), ("y",))]
    sizes = {"x": narrow, "y": narrow}
    for each in range(count):
        sizes |= {f"wide{each}": wide, f"narrow{each}": narrow}
    return Dataflow(steps, sizes, kept=frozenset({"y"}))


@st.composite
def flows(draw: st.DrawFn) -> Dataflow:
    steps = []
    for number in range(draw(st.integers(1, 15))):
        before = [f"t{each}" for each in range(number)] + ["given"]
        steps.append(Step(tuple(draw(st.lists(st.sampled_from(before), max_size=3))), (f"t{number}",)))
    sizes = {f"t{number}": draw(st.integers(0, 100)) for number in range(len(steps))}
    return Dataflow(steps, sizes, kept=draw(st.frozensets(st.sampled_from(sorted(sizes)))))


def runs(flow: Dataflow, order: Sequence[int]) -> bool:
    """Whether every step finds what it reads."""
    made = {"given", "in"}
    for number in order:
        if not set(flow.steps[number].uses) <= made:
            return False
        made |= set(flow.steps[number].makes)
    return sorted(order) == list(range(len(flow.steps)))


@given(flows())
def test_every_order_can_run_and_the_one_that_is_taken_needs_no_more(flow: Dataflow) -> None:
    graph = Numbered(flow)
    taken = scheduled(graph)
    assert runs(flow, frugal(graph))
    assert runs(flow, by_branch(graph))
    assert runs(flow, taken)
    assert graph.bound(taken) <= graph.bound(graph.own)


@given(flows(), st.sampled_from([1, 64]))
def test_a_graphs_plan_is_a_plan_of_its_order(flow: Dataflow, alignment: int) -> None:
    found = plan_graph(flow, alignment=alignment)
    assert overlaps(found.plan) == []
    assert list(found.plan.buffers) == plain_buffers(flow, found.order)
    assert found.plan.lower_bound_bytes <= found.own_bound_bytes
    assert found.rearranged or found.plan.lower_bound_bytes == found.own_bound_bytes


def test_branches_run_one_after_the_other_where_that_needs_less() -> None:
    found = plan_graph(branches(4), alignment=1)
    assert found.own_bound_bytes >= 4 * 1000
    assert found.rearranged
    assert found.plan.arena_bytes < 1100


def test_an_order_stays_where_no_other_needs_less() -> None:
    flow = Dataflow([Step(("in",), ("a",)), Step(("a",), ("b",)), Step(("b",), ("c",))], dict.fromkeys("abc", 64))
    found = plan_graph(flow)
    assert not found.rearranged
    assert found.order == (0, 1, 2)


def test_a_graph_of_thousands_of_nodes_in_a_row_is_no_recursion() -> None:
    steps = [Step((f"t{number}",), (f"t{number + 1}",)) for number in range(3_000)]
    flow = Dataflow(steps, {f"t{number}": 64 for number in range(3_001)})
    assert plan_graph(flow).plan.arena_bytes == 128
