"""Whether a way to hold activations is slower than it may be: what rounds of it and of the default tell."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw.memory.choice import SLOWER
from openclaw.optimizer.memory.comparing import ALPHA, LOOKS, Compared, compared, margin, settled, stays

times = st.floats(0.5, 2.0)
pairs = st.lists(st.tuples(times, times), min_size=1, max_size=30)


def rounds(ratio: float, count: int, *, noise: float, seed: int = 0) -> tuple[list[float], list[float]]:
    random = np.random.default_rng(seed)
    default = np.exp(random.standard_t(3, count) * noise)
    return list(ratio * np.exp(random.standard_t(3, count) * noise)), list(default)


@given(pairs)
def test_the_estimate_lies_between_its_bounds_and_turns_over_with_the_sides(
    found: list[tuple[float, float]],
) -> None:
    mine, default = map(list, zip(*found, strict=True))
    one, other = compared(mine, default), compared(default, mine)
    assert one.lower <= one.ratio <= one.upper
    assert one.rounds == len(found)
    assert one.ratio == pytest.approx(1 / other.ratio)
    assert one.lower == pytest.approx(1 / other.upper if math.isfinite(other.upper) else 0.0)


def signed_ranks_at_most(rounds: int, most: int) -> float:
    """The probability of it, by going through all signs."""
    signs = itertools.product((0, 1), repeat=rounds)
    return sum(sum(rank * sign for rank, sign in enumerate(each, 1)) <= most for each in signs) / 2**rounds


@pytest.mark.parametrize("count", [5, 7, 10, 12])
def test_a_bound_spares_as_many_means_of_pairs_as_signed_ranks_allow(count: int) -> None:
    mine, default = rounds(1.0, count, noise=0.1)
    logs = np.log(mine) - np.log(default)
    means = sorted((a + b) / 2 for i, a in enumerate(logs) for b in logs[i:])
    spared = means.index(pytest.approx(math.log(compared(mine, default, alpha=ALPHA).lower)))
    assert signed_ranks_at_most(count, spared) <= ALPHA < signed_ranks_at_most(count, spared + 1)


def test_too_few_rounds_tell_nothing_for_sure() -> None:
    found = compared([2.0] * 6, [1.0] * 6)
    assert found == Compared(ratio=pytest.approx(2.0), lower=0.0, upper=math.inf, rounds=6)
    assert found.open
    assert str(found) == "2.000"
    assert compared([2.0] * LOOKS[0], [1.0] * LOOKS[0]).slow


@pytest.mark.parametrize(
    ("ratio", "quick", "divided"),
    [(0.98, True, True), (1.009, True, True), (1.029, True, False), (1.031, False, False)],
)
def test_without_noise_the_limit_decides_or_a_third_of_it(ratio: float, quick: bool, divided: bool) -> None:
    mine, default = [ratio] * 7, [1.0] * 7
    found = compared(mine, default)
    assert (found.quick, found.slow) == (quick, not quick)
    assert stays(mine, default, divided=False) == quick
    assert stays(mine, default, divided=True) == divided


@pytest.mark.parametrize("divided", [False, True])
def test_more_rounds_are_run_until_it_is_shown_and_twice_as_many_of_few_rows(divided: bool) -> None:
    def open_after(ratio: float, count: int) -> bool:
        return not settled(compared([ratio] * count, [1.0] * count), divided=divided)

    assert open_after(1.0, LOOKS[0] - 1)
    assert open_after(1.0, LOOKS[0]) == divided
    assert not open_after(1.0, LOOKS[1])
    assert not open_after(1.1, LOOKS[0])


def share_that_stays(ratio: float, count: int, *, noise: float, divided: bool) -> float:
    drawn = (rounds(ratio, count, noise=noise, seed=seed) for seed in range(200))
    return sum(stays(*each, divided=divided) for each in drawn) / 200


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.2])
@pytest.mark.parametrize("count", [7, 28])
def test_an_arena_that_is_no_slower_stays_however_noisy_the_machine(noise: float, count: int) -> None:
    assert share_that_stays(1.0, count, noise=noise, divided=False) >= 0.9


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.2])
@pytest.mark.parametrize("count", [5, 7, 28])
def test_few_rows_that_are_slower_than_allowed_do_not_stay_however_noisy_the_machine(noise: float, count: int) -> None:
    assert share_that_stays(1.035, count, noise=noise, divided=True) <= 0.05


@pytest.mark.parametrize(("noise", "count"), [(0.005, 7), (0.02, 28), (0.04, 56)])
def test_few_rows_that_are_as_quick_as_all_stay_where_rounds_are_enough_for_the_noise(noise: float, count: int) -> None:
    assert share_that_stays(1.0, count, noise=noise, divided=True) >= 0.6


@pytest.mark.parametrize("divided", [True, False])
def test_what_is_slower_by_far_is_refused(divided: bool) -> None:
    assert share_that_stays(1.15, 28, noise=0.05, divided=divided) < 0.05


def test_few_rows_have_to_be_shown_to_be_quick_enough() -> None:
    mine, default = [1.06, 0.94, 1.12, 1.05, 0.97, 1.12, 1.04], [1.0] * 7
    found = compared(mine, default)
    assert found.open
    assert found.ratio > SLOWER
    assert compared(mine, default, alpha=ALPHA).lower <= 1
    assert stays(mine, default, divided=False)
    quicker = [one / found.ratio for one in mine]
    assert compared(quicker, default).ratio == pytest.approx(1.0)
    assert not stays(mine, default, divided=True)
    assert not stays(quicker, default, divided=True)


@given(st.floats(0.01, 100.0), st.floats(0.5, 1.1))
def test_few_rows_that_stay_are_shown_to_be_within_what_is_allowed(allowed: float, part: float) -> None:
    mine, default = rounds(allowed * part, 7, noise=0.005)
    found = compared(mine, default, allowed=allowed, alpha=ALPHA)
    within = found.upper <= allowed and found.ratio <= margin(allowed) <= allowed
    assert stays(mine, default, divided=True, allowed=allowed) == within
    assert not found.quick or stays(mine, default, divided=False, allowed=allowed)


@pytest.mark.parametrize(
    ("mine", "default", "why"),
    [
        ([], [], "0 rounds cannot be compared with 0"),
        ([1.0], [1.0, 1.0], "1 rounds cannot be compared with 2"),
        ([1.0, 0.0], [1.0, 1.0], r"a time of 0\.0 s was measured"),
    ],
)
def test_what_cannot_be_compared_is_told(mine: list[float], default: list[float], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        compared(mine, default)
