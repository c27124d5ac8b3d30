"""Who has memory, who gives it up, and what is said when there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw.memory.tiers import (
    STALE_SECONDS,
    Placing,
    Resident,
    Shortage,
    Tier,
    needed,
    placing,
    promotion,
    reduction,
)

NOW = 1000.0
FRESH, STALE = NOW - 1, NOW - STALE_SECONDS


def packed(name: str, size: int = 100, *, used: float = FRESH, pinned: bool = False, busy: bool = False) -> Resident:
    return Resident(name, size, size, Tier.PACKED, used, pinned, busy)


@st.composite
def residents(draw: st.DrawFn, *, name: str = "") -> Resident:
    size = draw(st.integers(0, 100))
    return Resident(
        name,
        packed=size + draw(st.integers(0, 50)),
        mapped=draw(st.none() | st.integers(0, size)),
        tier=draw(st.sampled_from(Tier)),
        last_used=draw(st.sampled_from([0.0, STALE, FRESH, NOW])),
        pinned=draw(st.booleans()),
        busy=draw(st.booleans()),
    )


@st.composite
def servers(draw: st.DrawFn) -> list[Resident]:
    return [draw(residents(name=f"m{i}")) for i in range(draw(st.integers(0, 6)))]


BUDGETS = st.integers(0, 500)


def after(models: list[Resident], evict: tuple[str, ...], remap: tuple[str, ...] = ()) -> list[Resident]:
    tiers = dict.fromkeys(evict, Tier.EVICTED) | dict.fromkeys(remap, Tier.MAPPED)
    return [replace(model, tier=tiers.get(model.name, model.tier)) for model in models]


def held(models: list[Resident]) -> int:
    return sum(model.held for model in models)


class TestPlacing:
    @given(residents(name="wanted"), servers(), BUDGETS)
    def test_what_is_opened_is_within_the_budget(self, wanted: Resident, others: list[Resident], budget: int) -> None:
        found = placing(wanted, others, budget=budget, now=NOW)
        if isinstance(found, Placing):
            # Somebody who takes nothing may be let in where others are above the budget already.
            room = max(budget, held(others) if wanted.cost(found.tier) == 0 else 0)
            assert held(after(others, found.evict)) + wanted.cost(found.tier) <= room

    @given(residents(name="wanted"), servers(), BUDGETS)
    def test_neither_pinned_models_nor_those_that_answer_are_evicted(
        self, wanted: Resident, others: list[Resident], budget: int
    ) -> None:
        found = placing(wanted, others, budget=budget, now=NOW)
        evicted = found.evict if isinstance(found, Placing) else ()
        assert all(model.movable for model in others if model.name in evicted)

    @given(residents(name="wanted"), servers(), BUDGETS)
    def test_nobody_is_evicted_while_one_used_longer_ago_stays_and_would_have_been_enough(
        self, wanted: Resident, others: list[Resident], budget: int
    ) -> None:
        found = placing(wanted, others, budget=budget, now=NOW)
        evicted = found.evict if isinstance(found, Placing) else ()
        newest = max((model.last_used for model in others if model.name in evicted), default=0.0)
        assert all(model.last_used >= newest for model in others if model.movable and model.name not in evicted)

    @given(residents(name="wanted"), servers(), BUDGETS)
    def test_there_is_a_way_or_the_number_that_is_needed(
        self, wanted: Resident, others: list[Resident], budget: int
    ) -> None:
        found = placing(wanted, others, budget=budget, now=NOW)
        quiet = [replace(other, busy=False) for other in others]
        later = placing(wanted, quiet, budget=budget, now=NOW)
        if isinstance(found, Shortage):
            assert found.needed == min(wanted.packed, wanted.cost(Tier.MAPPED))
            assert found.passing == isinstance(later, Placing) == (found.needed <= found.left)

    def test_without_a_budget_everything_is_packed(self) -> None:
        others = [packed("a", 10**12)]
        assert placing(packed("b"), others, budget=None, now=NOW) == Placing(Tier.PACKED)

    def test_a_model_is_packed_while_there_is_room(self) -> None:
        assert placing(packed("b"), [packed("a")], budget=200, now=NOW) == Placing(Tier.PACKED)

    def test_who_is_asked_for_now_does_not_drive_out_who_was_just_asked_for_but_is_mapped(self) -> None:
        wanted = Resident("rare", packed=100, mapped=10)
        assert placing(wanted, [packed("hot", 95)], budget=110, now=NOW) == Placing(Tier.MAPPED)

    def test_a_model_takes_the_place_of_the_one_used_longest_ago_if_that_is_long_ago(self) -> None:
        others = [packed("a", used=STALE), packed("b", used=STALE - 1), packed("c")]
        wanted = Resident("wanted", packed=100, mapped=10)
        assert placing(wanted, others, budget=300, now=NOW) == Placing(Tier.PACKED, ("b",))

    def test_a_model_that_cannot_be_mapped_takes_the_place_of_any(self) -> None:
        wanted = Resident("wanted", packed=100, mapped=None)
        assert placing(wanted, [packed("a")], budget=150, now=NOW) == Placing(Tier.PACKED, ("a",))

    def test_a_model_larger_than_the_budget_is_mapped(self) -> None:
        assert placing(Resident("big", 1500, 20), [], budget=1000, now=NOW) == Placing(Tier.MAPPED)

    @pytest.mark.parametrize(("busy", "passing"), [(True, True), (False, False)])
    def test_a_shortage_says_what_is_needed_and_whether_it_passes(self, busy: bool, passing: bool) -> None:
        other = packed("a", 100, pinned=not busy, busy=busy)
        wanted = Resident("wanted", packed=100, mapped=60)
        left = 150 if busy else 50
        assert placing(wanted, [other], budget=150, now=NOW) == Shortage(60, left=left, passing=passing)


class TestPromotion:
    @given(servers(), BUDGETS)
    def test_it_stays_within_the_budget_and_harms_nobody_who_was_asked_for_lately(
        self, models: list[Resident], budget: int
    ) -> None:
        found = promotion(models, budget=budget, now=NOW)
        if found is None:
            return
        name, change = found
        (promoted,) = [model for model in models if model.name == name]
        rest = [model for model in models if model.name != name]
        assert promoted.tier is Tier.MAPPED
        assert change.tier is Tier.PACKED
        assert held(after(rest, change.evict)) + promoted.packed <= max(
            budget, held(rest) if not promoted.packed else 0
        )
        if not promoted.pinned:
            assert all(other.last_used <= STALE for other in rest if other.name in change.evict)

    def test_the_one_asked_for_last_comes_first(self) -> None:
        models = [Resident("a", 100, 10, Tier.MAPPED, FRESH), Resident("b", 100, 10, Tier.MAPPED, NOW)]
        assert promotion(models, budget=115, now=NOW) == ("b", Placing(Tier.PACKED))

    def test_a_model_that_nobody_asks_for_stays_mapped(self) -> None:
        assert promotion([Resident("a", 100, 10, Tier.MAPPED, STALE)], budget=200, now=NOW) is None


class TestReduction:
    @given(servers(), BUDGETS)
    def test_after_it_the_budget_holds_or_the_rest_is_told(self, models: list[Resident], budget: int) -> None:
        found = reduction(models, budget=budget)
        left = held(after(models, found.evict, found.remap))
        assert left <= budget + found.missing
        assert not found.missing or left == budget + found.missing

    @given(servers(), BUDGETS)
    def test_nobody_pinned_or_answering_is_evicted(self, models: list[Resident], budget: int) -> None:
        found = reduction(models, budget=budget)
        assert all(model.movable for model in models if model.name in found.evict)

    @given(servers(), BUDGETS)
    def test_nothing_is_given_up_below_the_budget(self, models: list[Resident], budget: int) -> None:
        if held(models) <= budget:
            assert reduction(models, budget=budget) == reduction([], budget=budget)

    def test_a_pinned_model_is_mapped_where_nothing_else_helps(self) -> None:
        models = [packed("a", 50), Resident("pinned", 100, 10, Tier.PACKED, NOW, pinned=True)]
        found = reduction(models, budget=40)
        assert (found.evict, found.remap, found.missing) == (("a",), ("pinned",), 0)


@given(servers())
def test_with_what_is_needed_each_model_can_be_opened(models: list[Resident]) -> None:
    budget = needed(models)
    pinned = [
        replace(model, tier=Tier.PACKED if model.mapped is None or model.packed <= model.mapped else Tier.MAPPED)
        for model in models
        if model.pinned
    ]
    for model in models:
        others = [other for other in pinned if other.name != model.name]
        assert isinstance(placing(model, others, budget=budget, now=NOW), Placing)
