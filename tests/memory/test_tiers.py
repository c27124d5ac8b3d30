"""Who has memory, who gives it up, and what is said when there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw.memory.tiers import (
    STALE_SECONDS,
    Basis,
    Footprint,
    Placing,
    Shortage,
    Tier,
    needed,
    placing,
    promotion,
    reduction,
)

NOW = 1000.0
FRESH, STALE = NOW - 1, NOW - STALE_SECONDS


def packed(name: str, size: int = 100, *, used: float = FRESH, pinned: bool = False, busy: bool = False) -> Footprint:
    return Footprint(name, size, size, Tier.PACKED, used, pinned, busy)


@st.composite
def footprints(draw: st.DrawFn, *, name: str = "") -> Footprint:
    size = draw(st.integers(0, 100))
    return Footprint(
        name,
        packed=size + draw(st.integers(0, 50)),
        mapped=draw(st.none() | st.integers(0, size)),
        tier=draw(st.sampled_from(Tier)),
        last_used=draw(st.sampled_from([0.0, STALE, FRESH, NOW])),
        pinned=draw(st.booleans()),
        busy=draw(st.booleans()),
    )


@st.composite
def servers(draw: st.DrawFn) -> list[Footprint]:
    return [draw(footprints(name=f"m{i}")) for i in range(draw(st.integers(0, 6)))]


BUDGETS = st.integers(0, 500)
LENT = st.just(0) | st.integers(0, 200)


def after(models: list[Footprint], evict: tuple[str, ...], remap: tuple[str, ...] = ()) -> list[Footprint]:
    tiers = dict.fromkeys(evict, Tier.EVICTED) | dict.fromkeys(remap, Tier.MAPPED)
    return [replace(model, tier=tiers.get(model.name, model.tier)) for model in models]


def held(models: list[Footprint]) -> int:
    return sum(model.held for model in models)


class TestPlacing:
    @given(footprints(name="wanted"), servers(), BUDGETS, LENT, st.booleans(), st.booleans())
    def test_what_there_is_room_for_is_within_what_requests_leave_of_the_budget(
        self, wanted: Footprint, others: list[Footprint], budget: int, lent: int, evicting: bool, enforced: bool
    ) -> None:
        found = placing(wanted, others, budget=budget, now=NOW, lent=lent, evicting=evicting, enforced=enforced)
        if isinstance(found, Placing) and found.basis is Basis.ROOM:
            assert held(after(others, found.evict)) + wanted.cost(found.tier) <= budget - lent

    @given(footprints(name="wanted"), servers(), BUDGETS)
    def test_neither_pinned_models_nor_those_that_answer_are_evicted(
        self, wanted: Footprint, others: list[Footprint], budget: int
    ) -> None:
        found = placing(wanted, others, budget=budget, now=NOW)
        evicted = found.evict if isinstance(found, Placing) else ()
        assert all(model.movable for model in others if model.name in evicted)

    @given(footprints(name="wanted"), servers(), BUDGETS)
    def test_nobody_is_evicted_while_one_used_longer_ago_stays_and_would_have_been_enough(
        self, wanted: Footprint, others: list[Footprint], budget: int
    ) -> None:
        found = placing(wanted, others, budget=budget, now=NOW)
        evicted = found.evict if isinstance(found, Placing) else ()
        newest = max((model.last_used for model in others if model.name in evicted), default=0.0)
        assert all(model.last_used >= newest for model in others if model.movable and model.name not in evicted)

    @given(footprints(name="wanted"), servers(), BUDGETS, LENT)
    def test_there_is_a_way_or_the_number_that_is_needed_and_whether_it_passes_with_the_requests_in_flight(
        self, wanted: Footprint, others: list[Footprint], budget: int, lent: int
    ) -> None:
        found = placing(wanted, others, budget=budget, now=NOW, lent=lent)
        quiet = [replace(other, busy=False) for other in others]
        later = placing(wanted, quiet, budget=budget, now=NOW)
        if isinstance(found, Shortage):
            assert found.needed == min(wanted.packed, wanted.cost(Tier.MAPPED))
            assert found.passing == isinstance(later, Placing) == (found.needed <= found.left)

    @given(footprints(name="wanted"), servers(), BUDGETS, LENT, st.booleans())
    def test_who_may_not_drive_others_out_evicts_nobody_and_waits_for_nobody(
        self, wanted: Footprint, others: list[Footprint], budget: int, lent: int, enforced: bool
    ) -> None:
        found = placing(wanted, others, budget=budget, now=NOW, lent=lent, evicting=False, enforced=enforced)
        quiet = [replace(other, busy=False) for other in others]
        later = placing(wanted, quiet, budget=budget, now=NOW)
        if isinstance(found, Placing):
            assert found.evict == ()
        else:
            assert not found.passing
        # On trial is who could have a place of somebody else's, and then in the tier that takes the least.
        if isinstance(found, Placing) and found.basis is Basis.TRIAL:
            assert isinstance(later, Placing)
            assert wanted.cost(found.tier) == min(wanted.packed, wanted.cost(Tier.MAPPED))
            assert wanted.cost(found.tier) > budget - lent - held(others)
        if enforced:
            assert isinstance(found, Shortage) == isinstance(later, Shortage)

    @given(footprints(name="wanted"), servers(), BUDGETS, LENT, st.booleans())
    def test_a_budget_that_is_not_sure_refuses_nobody_and_changes_nothing_else(
        self, wanted: Footprint, others: list[Footprint], budget: int, lent: int, evicting: bool
    ) -> None:
        sure = placing(wanted, others, budget=budget, now=NOW, lent=lent, evicting=evicting)
        guess = placing(wanted, others, budget=budget, now=NOW, lent=lent, evicting=evicting, enforced=False)
        if isinstance(sure, Shortage) and not sure.passing:
            assert guess == Placing(Tier.PACKED, basis=Basis.TRUST)
        else:
            assert guess == sure

    def test_without_a_budget_everything_is_packed_and_taken_to_fit(self) -> None:
        others = [packed("a", 10**12)]
        assert placing(packed("b"), others, budget=None, now=NOW) == Placing(Tier.PACKED, basis=Basis.TRUST)

    def test_what_requests_have_for_now_is_waited_for(self) -> None:
        found = placing(packed("a", 100), [], budget=100, now=NOW, lent=1)
        assert found == Shortage(100, left=100, passing=True)

    def test_a_model_without_room_is_shown_to_work_in_the_tier_that_takes_least(self) -> None:
        wanted = Footprint("wanted", packed=100, mapped=60)
        found = placing(wanted, [packed("a", 100, used=STALE)], budget=150, now=NOW, evicting=False)
        assert found == Placing(Tier.MAPPED, basis=Basis.TRIAL)

    def test_a_model_is_packed_while_there_is_room(self) -> None:
        assert placing(packed("b"), [packed("a")], budget=200, now=NOW) == Placing(Tier.PACKED)

    def test_who_is_asked_for_now_does_not_drive_out_who_was_just_asked_for_but_is_mapped(self) -> None:
        wanted = Footprint("rare", packed=100, mapped=10)
        assert placing(wanted, [packed("hot", 95)], budget=110, now=NOW) == Placing(Tier.MAPPED)

    def test_a_model_takes_the_place_of_the_one_used_longest_ago_if_that_is_long_ago(self) -> None:
        others = [packed("a", used=STALE), packed("b", used=STALE - 1), packed("c")]
        wanted = Footprint("wanted", packed=100, mapped=10)
        assert placing(wanted, others, budget=300, now=NOW) == Placing(Tier.PACKED, ("b",))

    def test_a_model_that_cannot_be_mapped_takes_the_place_of_any(self) -> None:
        wanted = Footprint("wanted", packed=100, mapped=None)
        assert placing(wanted, [packed("a")], budget=150, now=NOW) == Placing(Tier.PACKED, ("a",))

    def test_a_model_larger_than_the_budget_is_mapped(self) -> None:
        assert placing(Footprint("big", 1500, 20), [], budget=1000, now=NOW) == Placing(Tier.MAPPED)

    @pytest.mark.parametrize(("busy", "passing"), [(True, True), (False, False)])
    def test_a_shortage_says_what_is_needed_and_whether_it_passes(self, busy: bool, passing: bool) -> None:
        other = packed("a", 100, pinned=not busy, busy=busy)
        wanted = Footprint("wanted", packed=100, mapped=60)
        left = 150 if busy else 50
        assert placing(wanted, [other], budget=150, now=NOW) == Shortage(60, left=left, passing=passing)


class TestPromotion:
    @given(servers(), BUDGETS)
    def test_it_stays_within_the_budget_and_harms_nobody_who_was_asked_for_lately(
        self, models: list[Footprint], budget: int
    ) -> None:
        found = promotion(models, budget=budget, now=NOW)
        if found is None:
            return
        name, change = found
        (promoted,) = [model for model in models if model.name == name]
        rest = [model for model in models if model.name != name]
        assert promoted.tier is Tier.MAPPED
        assert change.tier is Tier.PACKED
        assert held(after(rest, change.evict)) + promoted.packed <= budget
        if not promoted.pinned:
            assert all(other.last_used <= STALE for other in rest if other.name in change.evict)

    def test_the_one_asked_for_last_comes_first(self) -> None:
        models = [Footprint("a", 100, 10, Tier.MAPPED, FRESH), Footprint("b", 100, 10, Tier.MAPPED, NOW)]
        assert promotion(models, budget=115, now=NOW) == ("b", Placing(Tier.PACKED))

    def test_a_model_that_nobody_asks_for_stays_mapped(self) -> None:
        assert promotion([Footprint("a", 100, 10, Tier.MAPPED, STALE)], budget=200, now=NOW) is None


class TestReduction:
    @given(servers(), BUDGETS)
    def test_after_it_the_budget_holds_or_the_rest_is_told(self, models: list[Footprint], budget: int) -> None:
        found = reduction(models, budget=budget)
        left = held(after(models, found.evict, found.remap))
        assert left <= budget + found.missing
        assert not found.missing or left == budget + found.missing

    @given(servers(), BUDGETS)
    def test_nobody_pinned_or_answering_is_evicted(self, models: list[Footprint], budget: int) -> None:
        found = reduction(models, budget=budget)
        assert all(model.movable for model in models if model.name in found.evict)

    @given(servers(), BUDGETS)
    def test_nothing_is_given_up_below_the_budget(self, models: list[Footprint], budget: int) -> None:
        if held(models) <= budget:
            assert reduction(models, budget=budget) == reduction([], budget=budget)

    def test_a_pinned_model_is_mapped_where_nothing_else_helps(self) -> None:
        models = [packed("a", 50), Footprint("pinned", 100, 10, Tier.PACKED, NOW, pinned=True)]
        found = reduction(models, budget=40)
        assert (found.evict, found.remap, found.missing) == (("a",), ("pinned",), 0)


@given(servers())
def test_with_what_is_needed_each_model_can_be_opened(models: list[Footprint]) -> None:
    budget = needed(models)
    pinned = [
        replace(model, tier=Tier.PACKED if model.mapped is None or model.packed <= model.mapped else Tier.MAPPED)
        for model in models
        if model.pinned
    ]
    for model in models:
        others = [other for other in pinned if other.name != model.name]
        assert isinstance(placing(model, others, budget=budget, now=NOW), Placing)
