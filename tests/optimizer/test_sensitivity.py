"""The search for the layers that go back to float."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw.errors import NotApplicable
from openclaw.optimizer.precision.sensitivity import WITHIN, fall_back, measure, within_budget


class Ticking:
    """A clock that goes on by a second each time it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


harms_of_layers = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60).map(
    lambda values: {f"layer{index}": value for index, value in enumerate(values)}
)


@settings(max_examples=200, deadline=None)
@given(harms=harms_of_layers, within=st.floats(0.01, 3.0))
def test_what_is_found_holds_and_is_the_fewest_where_harms_add_up(harms: dict[str, float], within: float) -> None:
    def judge(floats: frozenset[str]) -> float:
        return math.fsum(harm for name, harm in harms.items() if name not in floats)

    found = fall_back(harms, judge, within=within)
    ordered = sorted(harms.values(), reverse=True)
    fewest = next(count for count in range(len(ordered) + 1) if math.fsum(ordered[count:]) <= within)
    if fewest == len(ordered):
        assert found is None
        return
    assert found is not None
    assert judge(frozenset(found.floats)) == found.used <= within
    assert len(found.floats) == fewest
    assert found.judged <= 2 * math.log2(len(harms) + 1) + 3 + fewest


@settings(max_examples=200, deadline=None)
@given(
    harms=harms_of_layers,
    used=st.dictionaries(st.integers(0, 60), st.floats(0.0, 3.0)),
)
def test_whatever_a_judge_says_nothing_is_found_that_it_refused(
    harms: dict[str, float], used: dict[int, float]
) -> None:
    said: dict[frozenset[str], float] = {}

    def judge(floats: frozenset[str]) -> float:
        return said.setdefault(floats, used.get(len(floats), 2.0))

    found = fall_back(harms, judge, within=1.0)
    if found is not None:
        assert said[frozenset(found.floats)] == found.used <= 1.0
        assert set(found.floats) < set(harms)


def test_a_layer_taken_back_in_vain_is_lowered_again() -> None:
    def judge(floats: frozenset[str]) -> float:
        return 0.5 if "b" in floats else 2.0

    found = fall_back({"a": 3.0, "b": 2.0, "c": 1.0}, judge, within=1.0)
    assert found is not None
    assert found.floats == ("b",)


def test_the_search_ends_in_time_with_the_best_that_held() -> None:
    harms = {f"layer{index}": 1.0 for index in range(1000)}
    found = fall_back(harms, lambda floats: 1000.0 - len(floats), within=100.0, seconds=0.5, clock=Ticking())
    assert found is not None
    assert found.used <= 100.0
    assert found.judged <= 25


def test_layers_that_were_not_measured_rank_below_those_that_were() -> None:
    estimates = {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}
    harms = measure(estimates, lambda name: {"a": 0.2, "b": 0.6}[name], seconds=2.5, clock=Ticking())
    assert sorted(harms, key=lambda name: -harms[name]) == ["b", "a", "c", "d"] or harms["c"] <= harms["a"]
    assert harms["a"] == 0.2
    assert harms["b"] == 0.6
    assert harms["d"] < harms["c"] <= 0.2


def test_a_form_within_the_budget_is_taken_whole_and_judged_once() -> None:
    found = within_budget({"a": 1.0}, lambda floats: WITHIN)
    assert (found.floats, found.judged) == ((), 1)


def test_a_budget_that_nothing_holds_is_refused_with_what_was_used() -> None:
    with pytest.raises(NotApplicable, match="uses up 7 of the accuracy budget"):
        within_budget({"a": 1.0, "b": 1.0}, lambda floats: 7.0)


def test_nothing_is_judged_after_the_end_even_if_nothing_held() -> None:
    judged: list[int] = []

    def judge(floats: frozenset[str]) -> float:
        judged.append(len(floats))
        return 1000.0

    estimates = {f"layer{index}": 1.0 for index in range(1000)}
    with pytest.raises(NotApplicable, match="found in time"):
        within_budget(estimates, judge, ends=12.0, clock=Ticking())
    assert len(judged) < 12
    judged.clear()
    with pytest.raises(NotApplicable, match="no time left to look for layers"):
        within_budget(estimates, judge, ends=0.0, clock=Ticking())
    assert judged == [0]
