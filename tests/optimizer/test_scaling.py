"""Scales for 8 bits."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw.optimizer.precision.scaling import (
    Observed,
    bias_correction,
    choose,
    input_scale,
    round_input,
    round_weight,
)


def observed(rows: np.ndarray) -> Observed:
    return Observed(rows.min(axis=0), rows.max(axis=0), rows)


numbers = st.floats(-(2.0**99), 2.0**99, width=32)


@settings(max_examples=200, deadline=None)
@given(low=numbers, high=numbers, signed=st.booleans())
def test_zero_is_always_exact_and_both_ends_are_reached(low: float, high: float, signed: bool) -> None:
    low, high = min(low, high), max(low, high)
    scale, zero = input_scale(low, high, signed=signed)
    least = -128 if signed else 0
    assert np.isfinite(scale)
    assert scale > 0
    assert least <= zero <= least + 255
    reach = [(least - zero) * float(scale), (least + 255 - zero) * float(scale)]
    # Ends are off by half a step of the zero point's rounding.
    assert reach[0] <= min(low, 0.0) + float(scale)
    assert reach[1] >= max(high, 0.0) - float(scale)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3), min_size=1, max_size=8),
    st.sampled_from([64, 127]),
)
def test_a_weight_is_off_by_half_a_step_of_its_output_at_most(values: list[list[float]], limit: int) -> None:
    weight = np.array(values, np.float32)
    whole, scales = round_weight(weight, limit)
    assert np.abs(whole.astype(int)).max() <= limit
    assert (np.abs(whole * scales - weight) <= scales * 0.5001 + 1e-30).all()


def test_an_outlying_column_is_smoothed_and_loses_less() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((64, 32)).astype(np.float32)
    rows[:, 3] *= 100
    weight = random.standard_normal((32, 16)).astype(np.float32)
    plain = choose(observed(rows), weight, limit=127)
    smooth = choose(observed(rows), weight, limit=127, smooth=True)
    assert smooth.smooth is not None
    assert smooth.loss < 0.5 * plain.loss


def test_even_columns_are_not_smoothed() -> None:
    random = np.random.default_rng(0)
    rows = random.uniform(-1, 1, (64, 32)).astype(np.float32)
    weight = random.uniform(-1, 1, (32, 16)).astype(np.float32)
    assert choose(observed(rows), weight, limit=127, smooth=True).smooth is None


def test_a_range_leaves_out_what_does_not_matter() -> None:
    random = np.random.default_rng(0)
    rows = random.uniform(-1, 1, (256, 32)).astype(np.float32)
    rows[:, 0] *= 3
    weight = random.uniform(-1, 1, (32, 8)).astype(np.float32)
    weight[0] = 0
    whole, clipped = (choose(observed(rows), weight, limit=127, clip=clip) for clip in (False, True))
    assert clipped.scale < whole.scale
    assert clipped.loss < whole.loss


def test_the_bias_takes_up_what_rounding_adds_on_average() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((128, 16)).astype(np.float32)
    weight = random.standard_normal((16, 4)).astype(np.float32)
    choice = choose(observed(rows), weight, limit=7)
    off = bias_correction(rows, weight, choice, limit=7, signed=False)
    whole, scales = round_weight(weight, 7)
    given_back = round_input(rows, choice, signed=False) @ (whole * scales) - off
    assert np.allclose(given_back.mean(axis=0), (rows @ weight).mean(axis=0), atol=1e-4)


def test_inputs_that_are_all_zero_have_a_scale() -> None:
    rows = np.zeros((4, 8), np.float32)
    choice = choose(observed(rows), np.zeros((8, 2), np.float32), limit=127, smooth=True)
    assert choice.scale > 0
    assert choice.loss == 0
