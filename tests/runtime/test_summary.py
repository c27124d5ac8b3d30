"""Quantiles of the last minute: right within a percent, and of the last minute alone."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from openclaw.serving.summary import ERROR, Summary

SECONDS = st.floats(1e-6, 1e3)
SHARES = (0.0, 0.5, 0.9, 0.99, 1.0)


@given(values=st.lists(SECONDS, min_size=1, max_size=200))
def test_a_quantile_is_off_by_a_percent_at_most(values: list[float]) -> None:
    summary = Summary()
    for value in values:
        summary.observe(value, now=1000.0)
    exact = np.quantile(values, SHARES, method="lower")
    for found, right in zip(summary.quantiles(SHARES, now=1000.0), exact, strict=True):
        assert abs(found - right) <= right * ERROR * 1.0001
    assert summary.count == len(values)
    assert math.isclose(summary.sum, sum(values))


@given(old=st.lists(SECONDS, min_size=1), new=st.lists(SECONDS, max_size=20), later=st.floats(60.0, 1e6))
def test_what_is_older_than_the_window_is_forgotten(old: list[float], new: list[float], later: float) -> None:
    summary, fresh = Summary(window=60.0), Summary(window=60.0)
    for value in old:
        summary.observe(value, now=1000.0)
    for value in new:
        summary.observe(value, now=1000.0 + later)
        fresh.observe(value, now=1000.0 + later)
    found = summary.quantiles(SHARES, now=1000.0 + later)
    assert found == fresh.quantiles(SHARES, now=1000.0 + later) or (not new and all(map(math.isnan, found)))
    assert summary.count == len(old) + len(new)


@given(now=st.floats(0, 49.9))
def test_what_is_younger_than_the_window_counts(now: float) -> None:
    summary = Summary(window=60.0)
    summary.observe(1.0, now=0.0)
    assert not math.isnan(summary.quantiles((0.5,), now=now)[0])


@given(value=st.sampled_from([0.0, -1.0, 1e-12, 1e9, math.inf]))
def test_values_beyond_the_bounds_count_as_the_bounds(value: float) -> None:
    summary = Summary()
    summary.observe(value, now=0.0)
    (found,) = summary.quantiles((0.5,), now=0.0)
    bound = 1e-6 if value < 1 else 1e4
    assert abs(found - bound) <= bound * ERROR * 1.0001
