"""Orders of execution that need less, plans of graphs, and plans kept for buckets of shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.oracle import overlaps
from openclaw.graph.lifetimes import Dataflow, Step
from openclaw.memory.graphs import Buckets, plan_graph
from openclaw.memory.scheduling import bound, by_branch, frugal, scheduled


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
    assert runs(flow, frugal(flow))
    assert runs(flow, by_branch(flow))
    assert runs(flow, scheduled(flow))
    assert bound(flow, scheduled(flow)) <= bound(flow)


@given(flows(), st.sampled_from([1, 64]))
def test_a_graphs_plan_is_a_plan_of_its_order(flow: Dataflow, alignment: int) -> None:
    found = plan_graph(flow, alignment=alignment)
    assert overlaps(found.plan) == []
    assert list(found.plan.buffers) == flow.buffers(found.order)
    assert found.plan.lower_bound_bytes <= found.own_bound_bytes
    assert found.rearranged or found.plan.lower_bound_bytes == found.own_bound_bytes


def test_branches_run_one_after_the_other_where_that_needs_less() -> None:
    flow = branches(4)
    found = plan_graph(flow, alignment=1)
    assert bound(flow) >= 4 * 1000
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


def test_a_bucket_is_planned_once_and_the_oldest_is_forgotten() -> None:
    asked: list[dict[str, tuple[int, ...]]] = []

    def flow(shapes: Mapping[str, Sequence[int]]) -> Dataflow:
        asked.append({name: tuple(shape) for name, shape in shapes.items()})
        return branches(2, wide=100 * shapes["x"][0])

    buckets = Buckets(flow, most=2, alignment=1)
    one, four = buckets.plan({"x": (1, 3)}), buckets.plan({"x": (4, 3)})
    assert one.plan.arena_bytes < four.plan.arena_bytes
    assert buckets.plan({"x": [1, 3]}) is one
    assert len(asked) == 2
    buckets.plan({"x": (8, 3)})
    assert buckets.plan({"x": (1, 3)}) is one
    assert buckets.plan({"x": (4, 3)}) is not four
    assert len(asked) == 4


def test_a_bucket_that_cannot_be_planned_is_asked_for_again() -> None:
    answers = iter([ValueError("no such shape"), branches(1)])

    def flow(shapes: Mapping[str, Sequence[int]]) -> Dataflow:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    buckets = Buckets(flow)
    with pytest.raises(ValueError, match="no such shape"):
        buckets.plan({"x": (1,)})
    assert buckets.plan({"x": (1,)}).plan.arena_bytes > 0
