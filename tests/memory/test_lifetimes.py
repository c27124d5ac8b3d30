"""Memory lives from the step that makes it to the last that needs it; what is written over an input shares its."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from openclaw.graph.lifetimes import Buffer, Dataflow, Step, live
from openclaw.memory.numbered import Numbered


def needed(flow: Dataflow, order: Sequence[int] | None = None) -> list[Buffer]:
    graph = Numbered(flow)
    return graph.buffers(graph.own if order is None else order)


def shared(found: list[Buffer]) -> list[tuple[str, ...]]:
    return [each.names for each in found]


def test_a_chain_of_writing_over_is_one_buffer() -> None:
    steps = [Step(("in",), ("a",)), Step(("a",), ("b",)), Step(("b",), ("c",)), Step(("c",), ("d",))]
    sizes = dict.fromkeys("abcd", 8)
    found = needed(Dataflow(steps, sizes, in_place=[("b", "a"), ("c", "b")]))
    assert found == [Buffer(("a", "b", "c"), 8, 0, 3), Buffer(("d",), 8, 3, 3)]


def test_an_input_that_is_needed_later_is_not_written_over() -> None:
    steps = [Step(("in",), ("a",)), Step(("a",), ("b",)), Step(("a", "b"), ("c",))]
    assert shared(needed(Dataflow(steps, dict.fromkeys("abc", 8), in_place=[("b", "a")]))) == [("a",), ("b",), ("c",)]


def test_an_input_that_another_name_is_needed_of_later_is_not_written_over() -> None:
    steps = [Step(("in",), ("a",)), Step(("a",), ("view",)), Step(("a",), ("b",)), Step(("view", "b"), ("c",))]
    found = needed(Dataflow(steps, {"a": 8, "view": 8, "b": 8, "c": 8}, aliases=[("view", "a")], in_place=[("b", "a")]))
    assert shared(found) == [("a", "view"), ("b",), ("c",)]


def test_only_one_of_two_inputs_is_written_over_and_the_first_is_preferred() -> None:
    steps = [Step((), ("a",)), Step((), ("b",)), Step(("a", "b"), ("c",))]
    found = needed(Dataflow(steps, dict.fromkeys("abc", 8), in_place=[("c", "a"), ("c", "b")]))
    assert shared(found) == [("a", "c"), ("b",)]
    found = needed(Dataflow(steps, {"a": 4, "b": 8, "c": 8}, in_place=[("c", "a"), ("c", "b")]))
    assert shared(found) == [("a",), ("b", "c")]


def test_inputs_and_outputs_of_the_graph_are_not_written_over() -> None:
    steps = [Step(("in",), ("a",)), Step(("a",), ("b",))]
    sizes = {"in": 8, "a": 8, "b": 8}
    pairs = [("a", "in"), ("b", "a")]
    assert shared(needed(Dataflow(steps, sizes, in_place=pairs, kept=frozenset("ab")))) == [("a",), ("b",)]
    # Where only the last is an output, it may lie where the other was; the input of the graph belongs to the caller.
    assert needed(Dataflow(steps, sizes, in_place=pairs, kept=frozenset("b"))) == [Buffer(("a", "b"), 8, 0, 1)]


def test_what_is_a_view_of_the_graphs_input_is_not_written_over() -> None:
    steps = [Step(("in",), ("view",)), Step(("view",), ("a",))]
    found = needed(Dataflow(steps, {"in": 8, "view": 8, "a": 8}, aliases=[("view", "in")], in_place=[("a", "view")]))
    assert shared(found) == [("a",)]


def test_another_order_has_other_lifetimes() -> None:
    flow = Dataflow([Step((), ("a",)), Step((), ("b",)), Step(("a",), ("c",))], {"a": 8, "b": 2, "c": 8})
    assert needed(flow, [0, 2, 1]) == [Buffer(("a",), 8, 0, 1), Buffer(("c",), 8, 1, 1), Buffer(("b",), 2, 2, 2)]


@st.composite
def flows(draw: st.DrawFn) -> Dataflow:
    """Graphs whose steps make one tensor each, read up to three and may write over any of them."""
    steps, pairs = [], []
    for number in range(draw(st.integers(1, 14))):
        before = [f"t{each}" for each in range(number)] + ["given"]
        uses = tuple(draw(st.lists(st.sampled_from(before), max_size=3)))
        steps.append(Step(uses, (f"t{number}",)))
        pairs += [(f"t{number}", name) for name in uses if draw(st.booleans())]
    names = [f"t{number}" for number in range(len(steps))]
    sizes = {name: draw(st.sampled_from([0, 4, 8])) for name in names}
    kept = draw(st.frozensets(st.sampled_from(names)))
    views = [(step.makes[0], step.uses[0]) for step in steps if step.uses and draw(st.integers(0, 4)) == 0]
    made_of = dict(views)
    for name, source in made_of.items():
        sizes[name] = sizes.get(source, 8)
    return Dataflow(steps, sizes, views, [pair for pair in pairs if pair[0] not in made_of], kept)


@given(flows())
def test_running_with_shared_memory_reads_what_was_written(flow: Dataflow) -> None:
    """Plays the graph: each buffer holds the value of the last tensor that was written to it, views share theirs."""
    group = {name: number for number, each in enumerate(needed(flow)) for name in each.names}
    views = dict(flow.aliases)
    holds: dict[int, str] = {}
    value: dict[str, str] = {}
    for step in flow.steps:
        for name in step.uses:
            if name in group:
                assert holds[group[name]] == value[name], f"{name} was written over before it was read"
        made = step.makes[0]
        value[made] = value.get(views[made], views[made]) if made in views else made
        if made in group:
            holds[group[made]] = value[made]
    for name in flow.kept & group.keys():
        assert holds[group[name]] == value[name]


@given(flows())
def test_writing_over_never_needs_more(flow: Dataflow) -> None:
    apart = needed(replace(flow, in_place=()))
    assert max(live(needed(flow), len(flow.steps))) <= max(live(apart, len(flow.steps)))


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Step], dict[str, int]]:
    steps = []
    for number in range(draw(st.integers(1, 12))):
        before = [f"t{each}" for each in range(number)] + ["given", ""]
        steps.append(Step(tuple(draw(st.lists(st.sampled_from(before), max_size=3))), (f"t{number}",)))
    return steps, {f"t{number}": draw(st.integers(0, 100)) for number in range(len(steps))}


@given(graphs(), st.data())
def test_what_lives_at_a_step_was_made_and_is_still_needed(
    graph: tuple[list[Step], dict[str, int]], data: st.DataObject
) -> None:
    steps, sizes = graph
    kept = frozenset(data.draw(st.lists(st.sampled_from(sorted(sizes)))))
    expected = [
        sum(
            sizes[name]
            for made, name in enumerate(f"t{each}" for each in range(number + 1))
            if made == number or name in kept or any(name in step.uses for step in steps[number:])
        )
        for number in range(len(steps))
    ]
    assert live(needed(Dataflow(steps, sizes, kept=kept)), len(steps)) == expected


def test_tensors_that_share_bytes_are_one_buffer_from_the_first_to_the_last() -> None:
    steps = [Step(("in",), ("a",)), Step(("a",), ("b",)), Step((), ("c",)), Step(("b", "c"), ("d",))]
    sizes = {"a": 8, "b": 8, "c": 4, "d": 2}
    found = needed(Dataflow(steps, sizes, aliases=[("b", "a")], kept=frozenset("d")))
    assert found == [Buffer(("a", "b"), 8, 0, 3), Buffer(("c",), 4, 2, 3), Buffer(("d",), 2, 3, 3)]


def test_what_shares_the_bytes_of_an_input_needs_none() -> None:
    steps = [Step(("in",), ("a",)), Step(("a",), ("b",)), Step(("b",), ("c",))]
    found = needed(Dataflow(steps, {"in": 8, "a": 8, "b": 8, "c": 8}, aliases=[("a", "in"), ("b", "a")]))
    assert shared(found) == [("c",)]
