"""The models of the table of gaps: each has what it is there for."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.graph.rows import ROWS, Row

from graph.oracle import assert_close, optimized, run_plainly


@pytest.mark.parametrize("row", [row for row in ROWS if row.passes], ids=lambda row: row.name)
def test_every_pass_that_a_row_names_rewrites_its_model_and_no_answer_changes(row: Row) -> None:
    model = row.build()
    after, counts = optimized(model, only=row.passes)
    assert set(counts) == set(row.passes)
    (given,) = model.graph.input
    shape = [size.dim_value for size in given.type.tensor_type.shape.dim]
    feed = {given.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    for wanted, found in zip(run_plainly(model, feed), run_plainly(after, feed), strict=True):
        assert_close(found, wanted, row.name)


def test_a_row_is_there_once_and_says_what_may_close_it() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert all(row.passes or row.engines for row in ROWS)
