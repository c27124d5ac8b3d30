"""Quantiles over a sliding window against numpy's."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from openclaw.serving import summary
from openclaw.serving.summary import CELLS, HIGHEST, LOWEST, RELATIVE_ERROR, SLICES, Window

latencies = st.lists(st.floats(LOWEST, HIGHEST, exclude_min=True), min_size=1, max_size=200)
WANTED = [0.0, 0.5, 0.9, 0.99, 1.0]


def recorded(values: list[float], now: float = 0.0, cells: list[float] | None = None) -> list[float]:
    cells = [0.0] * CELLS if cells is None else cells
    window = Window(cells, 0, seconds=60.0)
    window.record(np.array(values), now)
    return cells


def quantiles(*windows: list[float], now: float = 0.0) -> list[float]:
    return summary.quantiles(summary.merged(map(np.array, windows), now=now, seconds=60.0), WANTED)


@given(latencies)
def test_quantiles_are_within_the_relative_error_of_numpys(values: list[float]) -> None:
    exact = np.quantile(values, WANTED, method="lower")
    # A thousandth more: where the logarithm of a bucket's edge is rounded to its other side.
    np.testing.assert_allclose(quantiles(recorded(values)), exact, rtol=RELATIVE_ERROR * 1.001)


@given(latencies, latencies)
def test_windows_of_two_processes_merge_as_if_one_had_counted(first: list[float], second: list[float]) -> None:
    assert quantiles(recorded(first), recorded(second)) == quantiles(recorded(first + second))


@given(st.lists(st.tuples(st.floats(0.001, 10.0), st.floats(0.0, 7.0)), min_size=1, max_size=120))
def test_what_is_older_than_the_window_is_gone_and_what_is_younger_counts(steps: list[tuple[float, float]]) -> None:
    cells, now, values = [0.0] * CELLS, 1000.0, []
    window = Window(cells, 0, seconds=60.0)
    for value, pause in steps:
        now += pause
        window.record(np.array([value]), now)
        values.append((int(now * (SLICES / 60.0)), value))
    newest = int(now * (SLICES / 60.0))
    young = [value for period, value in values if period > newest - SLICES]
    counts = summary.merged([np.array(cells)], now=now, seconds=60.0)
    assert counts.sum() == len(young)
    exact = np.quantile(young, WANTED, method="lower")
    np.testing.assert_allclose(summary.quantiles(counts, WANTED), exact, rtol=RELATIVE_ERROR * 1.001)


def test_an_empty_window_has_no_quantiles() -> None:
    assert all(math.isnan(value) for value in quantiles([0.0] * CELLS))
    assert all(math.isnan(value) for value in quantiles(recorded([1.0]), now=120.0))


@given(st.sampled_from([0.0, -1.0, 1e-12, 1e9, math.inf]))
def test_a_value_beyond_the_range_counts_as_its_end(value: float) -> None:
    end = HIGHEST if value > 1 else LOWEST
    np.testing.assert_allclose(quantiles(recorded([value])), end, rtol=RELATIVE_ERROR * 1.001)


def test_a_window_that_is_taken_over_goes_on_in_its_slice() -> None:
    cells = recorded([1.0], now=31.0)
    recorded([1.0], now=32.0, cells=cells)
    assert summary.merged([np.array(cells)], now=33.0, seconds=60.0).sum() == 2


def test_copying_what_was_touched_copies_everything() -> None:
    cells, copy = [0.0] * CELLS, [0.0] * CELLS
    window = Window(cells, 0, seconds=60.0)
    for step in range(200):
        window.record(np.array([0.5]), float(step))
        if step % 7 == 0 or step == 199:
            for at in window.touched():
                copy[at : at + summary.STRIDE] = cells[at : at + summary.STRIDE]
    assert copy == cells
