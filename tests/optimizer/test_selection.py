"""When a form counts as faster, and which of several is kept."""

import math
import random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw.optimizer.measuring import selection
from openclaw.optimizer.measuring.selection import (
    Contender,
    bounds,
    choose,
    hopeless,
    ratio,
    rounds_needed,
    spared,
    unsettled,
)

SECONDS = st.floats(1e-6, 1e3)
ALPHAS = st.sampled_from([0.05, 0.01, 0.0025])


def test_seven_rounds_can_show_something_at_99_percent_and_six_cannot() -> None:
    assert rounds_needed(0.01) == 7
    assert spared(7, 0.01) == 0
    assert spared(6, 0.01) == -1


@given(st.integers(1, 60), ALPHAS)
def test_the_bound_holds_with_the_stated_probability_and_no_looser_one_does(rounds: int, alpha: float) -> None:
    def at_most(k: int) -> float:
        return sum(math.comb(rounds, i) for i in range(k + 1)) / 2**rounds

    k = spared(rounds, alpha)
    assert k < 0 or at_most(k) <= alpha
    assert at_most(k + 1) > alpha
    assert (k >= 0) == (rounds >= rounds_needed(alpha))


@pytest.mark.parametrize("rounds", [7, 11, 21])
def test_forms_that_are_equally_fast_pass_as_faster_at_most_once_in_a_hundred(rounds: int) -> None:
    rng = random.Random(5)
    tries = 20_000
    passed = 0
    for _ in range(tries):
        # Skewed and heavy-tailed, as latencies are; the median of the ratio is 1.
        ordered = sorted(math.exp(rng.gauss(0, 0.05) * rng.choice([1, 1, 8])) for _ in range(rounds))
        passed += bounds(ordered, 0.01)[1] < 1
    assert passed / tries < 0.013


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=40), ALPHAS)
def test_bounds_enclose_the_median_and_swap_when_the_forms_do(pairs: list[tuple[float, float]], alpha: float) -> None:
    mine, other = zip(*pairs, strict=True)
    there, back = ratio(mine, other, alpha=alpha), ratio(other, mine, alpha=alpha)
    assert there.lower <= there.median <= there.upper
    assert there.rounds == len(pairs)
    assert not (there.faster and back.faster)
    if math.isfinite(there.upper):
        assert back.lower == pytest.approx(1 / there.upper)


@given(st.lists(SECONDS, min_size=7, max_size=40), st.floats(0.1, 0.98), st.randoms())
def test_a_form_that_is_faster_in_every_round_is_faster_whatever_the_machine_does_meanwhile(
    drift: list[float], factor: float, rng: random.Random
) -> None:
    candidate = [seconds * factor * rng.uniform(0.999, 1.001) for seconds in drift]
    found = ratio(candidate, drift)
    assert found.faster
    assert found.median == pytest.approx(factor, rel=0.01)


def test_one_slow_round_does_not_hide_a_gain_and_one_fast_round_does_not_make_one() -> None:
    assert ratio([*[0.9] * 20, 50.0], [1.0] * 21).faster
    assert not ratio([*[1.0] * 20, 0.01], [1.0] * 21).faster


@pytest.mark.parametrize(
    ("candidate", "baseline", "told"), [([1.0], [1.0, 2.0], "1 rounds"), ([], [], "0 rounds"), ([0.0], [1.0], "0.0 s")]
)
def test_rounds_that_cannot_be_compared_are_refused(candidate: list[float], baseline: list[float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ratio(candidate, baseline)


def test_a_form_that_was_slower_three_times_in_a_row_is_hopeless_and_one_that_was_not_is_not() -> None:
    assert hopeless([1.2, 1.3, 1.1], [1.0, 1.0, 1.0])
    assert not hopeless([1.2, 1.3], [1.0, 1.0])
    assert not hopeless([1.2, 1.3, 1.01], [1.0, 1.0, 1.0])


def contender(
    name: str, factor: float, *, loss: float = 0.0, lossless: bool = False, noise: float = 0.001
) -> Contender:
    rng = random.Random(name)
    rounds = [factor * (1 + rng.uniform(-noise, noise)) for _ in range(21)]
    return Contender(name, loss, median(rounds), ratio(rounds, [1.0] * 21), rounds, lossless)


def test_the_fastest_is_kept_where_it_is_faster_beyond_the_noise_than_those_more_exact() -> None:
    exact, rough = contender("fp32", 0.9, lossless=True), contender("int8", 0.4, loss=0.5)
    assert choose([exact, rough]) is rough


def test_the_more_exact_of_two_that_are_as_fast_is_kept() -> None:
    exact, rough = contender("a", 0.5, loss=0.1, noise=0.05), contender("b", 0.499, loss=0.9, noise=0.05)
    assert choose([rough, exact]) is exact


def test_nothing_is_kept_where_nothing_is_faster() -> None:
    assert choose([contender("int8", 1.3, loss=0.5), contender("fp32", 1.1, lossless=True)]) is None
    assert choose([]) is None


def test_a_lossless_form_stays_if_it_is_not_slower_and_a_lossy_one_does_not() -> None:
    same = contender("fp32", 0.999, lossless=True, noise=0.01)
    assert not same.ratio.faster
    assert choose([same, contender("int8", 0.999, loss=0.1, noise=0.01)]) is same


@given(st.lists(st.tuples(st.floats(0.2, 2), st.floats(0, 1), st.booleans()), max_size=6), st.floats(0.1, 2))
def test_what_is_kept_is_never_slower_than_the_default(
    drawn: list[tuple[float, float, bool]], target: float | None
) -> None:
    contenders = [
        contender(str(index), factor, loss=0.0 if lossless else loss + 0.01, lossless=lossless)
        for index, (factor, loss, lossless) in enumerate(drawn)
    ]
    for aimed in (None, target):
        kept = choose(contenders, baseline=1.0, target=aimed)
        if kept is not None:
            assert kept.ratio.faster or (kept.lossless and kept.ratio.not_slower)
            assert not kept.ratio.slower
            assert kept.ratio.median <= selection.NOT_SLOWER
        elif aimed is None:
            assert not any(one.ratio.faster for one in contenders)


def test_a_target_takes_the_most_exact_form_that_meets_it() -> None:
    exact, middle, rough = contender("a", 0.8, loss=0.1), contender("b", 0.5, loss=0.4), contender("c", 0.2, loss=0.9)
    assert choose([rough, exact, middle], baseline=1.0, target=0.6) is middle
    assert choose([rough, exact, middle], baseline=1.0, target=0.9) is exact
    assert choose([rough, exact, middle], baseline=1.0, target=0.1) is rough, "the fastest, where none meets it"


def test_a_target_that_the_default_meets_costs_no_accuracy() -> None:
    exact, rough = contender("fp32", 0.9, lossless=True), contender("int8", 0.2, loss=0.9)
    assert choose([exact, rough], baseline=1.0, target=1.5) is exact
    assert choose([rough], baseline=1.0, target=1.5) is None


ROUNDS = st.lists(st.floats(0.8, 1.25), min_size=1, max_size=63)


@given(ROUNDS, ALPHAS)
def test_every_form_is_one_of_slower_undecided_or_not_slower_with_confidence(rounds: list[float], alpha: float) -> None:
    found = ratio(rounds, [1.0] * len(rounds), alpha=alpha)
    sure = found.upper <= selection.NOT_SLOWER and not found.slower
    assert [found.slower, found.undecided, sure].count(True) == 1
    assert not (found.faster and (found.slower or found.undecided))
    if found.not_slower:
        assert not found.slower
        assert sure or found.median <= selection.ON_PAR
        assert len(rounds) >= rounds_needed(alpha)
    if sure:
        assert found.not_slower


@given(ROUNDS)
def test_a_lossless_form_alone_is_kept_just_where_it_is_not_slower(rounds: list[float]) -> None:
    found = ratio(rounds, [1.0] * len(rounds))
    lossless = Contender("fp32", 0.0, median(rounds), found, rounds, lossless=True)
    lossy = Contender("int8", 0.5, median(rounds), found, rounds)
    assert (choose([lossless]) is lossless) == found.not_slower
    assert (choose([lossy]) is lossy) == found.faster
    assert unsettled([lossless]) == found.undecided
    assert not unsettled([lossy]), "what costs accuracy must show that it is faster"


@given(ROUNDS, st.floats(0.5, 0.99))
def test_rounds_that_can_only_confirm_are_not_run(rounds: list[float], factor: float) -> None:
    other = ratio(rounds, [1.0] * len(rounds))
    lossless = Contender("fp32", 0.0, median(rounds), other, rounds, lossless=True)
    assert not unsettled([lossless, contender("int8", factor, loss=0.5)])


def test_on_par_within_the_noise_is_kept_and_a_little_slower_with_certainty_is_not() -> None:
    noisy = contender("fp32", 1.003, lossless=True, noise=0.1)
    assert noisy.ratio.undecided
    assert choose([noisy]) is noisy
    slower = contender("fp32", 1.008, lossless=True, noise=0.002)
    assert slower.ratio.slower
    assert choose([slower]) is None


def test_the_final_has_enough_rounds_for_all_that_may_be_in_it() -> None:
    from openclaw.optimizer.candidates import lossless_recipes
    from openclaw.optimizer.measuring import timing
    from openclaw.optimizer.run import FINALISTS

    most = FINALISTS + len(lossless_recipes())
    assert timing.FINAL.least >= rounds_needed(selection.ALPHA / most / selection.LOOKS)
