"""Whether a way to hold activations is slower than it may be: what rounds of it and of the default tell."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw.memory.choice import SLOWER
from openclaw.optimizer.memory.comparing import ALPHA, LOOKS, MUCH_SLOWER, Compared, compared, stays

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


@pytest.mark.parametrize(("ratio", "quick", "slow"), [(0.98, True, False), (1.029, True, False), (1.031, False, True)])
def test_without_noise_the_limit_decides(ratio: float, quick: bool, slow: bool) -> None:
    mine, default = [ratio] * 7, [1.0] * 7
    found = compared(mine, default)
    assert (found.quick, found.slow) == (quick, slow)
    assert stays(mine, default, divided=True) == stays(mine, default, divided=False) == quick


def share_that_stays(ratio: float, count: int, *, noise: float, divided: bool) -> float:
    drawn = (rounds(ratio, count, noise=noise, seed=seed) for seed in range(200))
    return sum(stays(*each, divided=divided) for each in drawn) / 200


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.2])
@pytest.mark.parametrize("count", [7, 28])
def test_an_arena_that_is_no_slower_stays_however_noisy_the_machine(noise: float, count: int) -> None:
    assert share_that_stays(1.0, count, noise=noise, divided=False) >= 0.9


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.2])
@pytest.mark.parametrize("count", [5, 7, 28])
def test_few_rows_that_are_slower_by_a_tenth_do_not_stay_however_noisy_the_machine(noise: float, count: int) -> None:
    assert share_that_stays(MUCH_SLOWER, count, noise=noise, divided=True) <= 0.1


@pytest.mark.parametrize("divided", [True, False])
def test_what_is_slower_by_far_is_refused(divided: bool) -> None:
    assert share_that_stays(1.15, 28, noise=0.05, divided=divided) < 0.05


def test_few_rows_have_to_look_quick_enough_themselves() -> None:
    mine, default = [1.06, 0.94, 1.12, 1.05, 0.97, 1.12, 1.04], [1.0] * 7
    found = compared(mine, default)
    assert found.open
    assert found.ratio > SLOWER
    assert compared(mine, default, alpha=ALPHA).lower <= 1
    assert stays(mine, default, divided=False)
    assert not stays(mine, default, divided=True)


@pytest.mark.parametrize(("noise", "most"), [(0.03, 0.05), (0.06, 0.15)])
def test_few_rows_that_are_slower_by_a_twentieth_rarely_stay(noise: float, most: float) -> None:
    assert share_that_stays(1.05, 20, noise=noise, divided=True) <= most


@given(st.floats(0.01, 100.0))
def test_few_rows_that_stay_by_their_estimate_are_within_what_is_allowed(allowed: float) -> None:
    mine, default = rounds(allowed, 7, noise=0.03)
    if stays(mine, default, divided=True, allowed=allowed):
        assert compared(mine, default).ratio <= allowed


def test_few_rows_must_be_shown_not_to_be_much_slower() -> None:
    mine, default = [1.30, 0.80, 1.00, 1.25, 0.85, 1.02, 1.00], [1.0] * 7
    assert compared(mine, default).ratio <= SLOWER
    assert compared(mine, default, alpha=ALPHA).upper > MUCH_SLOWER
    assert stays(mine, default, divided=False)
    assert not stays(mine, default, divided=True)


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
