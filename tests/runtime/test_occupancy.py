"""What models take of a budget, as it is counted before any of them is served."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from openclaw.config import ModelConfig
from openclaw.errors import OverBudget
from openclaw.memory.accounting import Account, Level, State
from openclaw.memory.tiers import Basis, Placing, Shortage, Tier
from openclaw.serving.loader import Found, Size
from openclaw.serving.occupancy import Occupancy, ResidentModel

NAMES = ("a", "a", "b", "c")
ACTS = st.lists(st.tuples(st.integers(0, len(NAMES) - 1), st.sampled_from(["packed", "mapped", "expect", "drop"])))


def new(occupancy: Occupancy, name: str, size: int, *, small: int = 1) -> ResidentModel:
    config = ModelConfig(name=name, uri=f"file:///{name}.onnx")
    return occupancy.new(config, Found(Path(f"/{name}.onnx"), Size(size, small)))


@given(ACTS, st.lists(st.integers(1, 100), min_size=len(NAMES), max_size=len(NAMES)))
def test_what_is_counted_is_what_the_models_that_stay_have_claimed(
    acts: list[tuple[int, str]], sizes: list[int]
) -> None:
    account = Account(150)
    occupancy = Occupancy(account)
    models = [new(occupancy, name, size) for name, size in zip(NAMES, sizes, strict=True)]
    for number, act in acts:
        model = models[number]
        before = model.claim and model.claim.size
        if act == "expect":
            occupancy.expect(model)
        elif act == "drop":
            occupancy.drop(model)
            assert model.claim is None
        else:
            try:
                occupancy.claim(model, Tier(act))
            except OverBudget:
                assert (model.claim and model.claim.size) == before
        assert account.used(Level.WEIGHTS) == sum(model.claim.size for model in models if model.claim) <= 150


def test_of_two_opened_models_of_a_name_the_last_one_keeps_its_memory() -> None:
    account = Account(150)
    occupancy = Occupancy(account)
    first, second = new(occupancy, "a", 40), new(occupancy, "a", 60)
    for model in (first, second):
        occupancy.claim(model, Tier.PACKED)
        occupancy.expect(model)
    assert (first.claim, account.used(Level.WEIGHTS)) == (None, 61)
    # What comes too late of the first changes nothing for the second.
    occupancy.drop(first)
    assert account.used(Level.WEIGHTS) == 61


def test_memory_of_an_opened_model_is_nobody_elses() -> None:
    occupancy = Occupancy(Account(800))
    opened = new(occupancy, "a", 600)
    occupancy.claim(opened, Tier.PACKED)
    occupancy.expect(opened)
    found = occupancy.place(new(occupancy, "b", 300), now=0.0)
    assert found == Shortage(301, left=700, passing=True)
    occupancy.drop(opened)
    assert occupancy.place(new(occupancy, "b", 300), now=0.0) == Placing(Tier.PACKED)


def test_requests_in_flight_lend_memory_and_shared_regions_keep_it() -> None:
    account = Account(800)
    occupancy = Occupancy(account)
    model = new(occupancy, "a", 600)
    request = account.take(300, level=Level.OBJECTS)
    assert (occupancy.budget, occupancy.lent) == (700, 200)
    assert occupancy.place(model, now=0.0) == Shortage(601, left=700, passing=True)
    assert occupancy.place(model, now=0.0, evicting=False) == Placing(Tier.MAPPED, basis=Basis.TRIAL)
    request.turn(State.KEPT)
    assert (occupancy.budget, occupancy.lent) == (700, 0)
    request.release()
    account.take(300, level=Level.SHARED)
    assert (occupancy.budget, occupancy.lent) == (500, 0)
    assert occupancy.place(model, now=0.0) == Placing(Tier.MAPPED)
