"""Budgets: how they are written, what they refuse, and what is asked where nobody stated one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw.errors import ConfigInvalid
from openclaw.optimizer.accuracy.budget import Bound, Budget, default_budget, load_metric, parse
from openclaw.optimizer.accuracy.metrics import METRICS
from optimizer import models

ONES = [{"y": np.ones((4, 3), np.float32)}]


def test_a_budget_is_bounds_that_must_all_hold() -> None:
    budget = parse("cosine>=0.99, cosine-worst >= 0.98,max-abs<=0.5")
    assert budget.bounds == (
        Bound("cosine", ">=", 0.99),
        Bound("cosine-worst", ">=", 0.98),
        Bound("max-abs", "<=", 0.5),
    )
    assert budget.judge(ONES, ONES).within
    verdict = budget.judge(ONES, [{"y": np.ones((4, 3), np.float32) * 2}])
    assert verdict.broken == ("max-abs is 1 and must be <= 0.5",)
    assert verdict.values["cosine"] == pytest.approx(1)


@given(st.lists(st.sampled_from(sorted(METRICS)), unique=True, min_size=1), st.floats(0, 1))
def test_a_budget_reads_what_it_writes(names: list[str], limit: float) -> None:
    limit = float(f"{limit:g}")
    bounds = tuple(Bound(name, "<=" if name in ("max-abs", "relative") else ">=", limit) for name in names)
    assert parse(str(Budget(bounds))).bounds == bounds


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "'' in '' is no bound; write as top1>=0.998"),
        ("top1", "'top1' in 'top1' is no bound"),
        ("top1>0.9", "is no bound"),
        ("top5>=0.9", "'top5' is no metric; there are cosine, cosine-worst, max-abs, overlap, relative, top1"),
        ("metric>=0.9", "say with metric"),
        ("top1<=0.9", "from the wrong side; write top1>=0.9"),
        ("max-abs>=0.1", "from the wrong side; write max-abs<=0.1"),
        ("top1>=99", "asks for 99; allowed is 0 to 1"),
        ("top1>=high", "'high' in 'top1>=high' is no number"),
        ("cosine>=nan", "asks for nan"),
        ("top1>=0.9,top1>=0.8", "bounds one metric twice"),
        ("top1>=0.9,", "'' in 'top1>=0.9,' is no bound"),
    ],
)
def test_a_budget_that_says_nothing_is_refused_with_what_to_write(text: str, told: str) -> None:
    with pytest.raises(ConfigInvalid, match="accuracy_budget: ") as caught:
        parse(text)
    assert told in str(caught.value)


def test_the_users_metric_sees_all_samples_of_one_shape_together() -> None:
    seen = []

    def metric(reference: dict[str, np.ndarray], candidate: dict[str, np.ndarray]) -> float:
        seen.append((reference["y"].shape, candidate["y"].shape))
        return float(len(reference["y"]))

    batches = [
        {"y": np.ones((2, 3), np.float32)},
        {"y": np.ones((1, 3), np.float32)},
        {"y": np.ones((1, 5), np.float32)},
    ]
    verdict = parse("metric>=1", metric).judge(batches, batches)
    assert ((3, 3), (3, 3)) in seen
    assert ((1, 5), (1, 5)) in seen
    assert verdict.values["metric"] == pytest.approx((3 * 3 + 1 * 1) / 4), "weighted by samples"


def test_a_metric_that_raises_is_told_as_what_it_is() -> None:
    def metric(reference: object, candidate: object) -> float:
        raise KeyError("logits")

    with pytest.raises(ConfigInvalid, match="metric: it raised KeyError: 'logits'"):
        parse("metric>=0.5", metric).judge(ONES, ONES)


def test_a_metric_that_gives_nan_is_over_any_budget() -> None:
    verdict = parse("metric>=0.5", lambda a, b: math.nan).judge(ONES, ONES)
    assert not verdict.within
    assert verdict.used == math.inf


def test_a_metric_without_a_bound_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="says nothing of your metric"):
        parse("top1>=0.5", lambda a, b: 1.0)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("numpy", "names no function; write package.module:function"),
        ("no_such_module:f", "cannot be imported: ModuleNotFoundError"),
        ("numpy:no_such", "cannot be imported: AttributeError"),
        ("numpy:pi", "is a float"),
    ],
)
def test_a_metric_that_cannot_be_imported_is_refused(name: str, told: str) -> None:
    with pytest.raises(ConfigInvalid, match="metric: ") as caught:
        load_metric(name)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "other",
    [
        np.ones((4, 2), np.float32),
        np.ones((4, 3), np.float64),
        np.full((4, 3), np.nan, np.float32),
        np.full((4, 3), np.inf, np.float32),
    ],
)
def test_answers_of_another_kind_break_any_budget(other: np.ndarray) -> None:
    verdict = parse("top1>=0").judge(ONES, [{"y": other}])
    assert not verdict.within
    assert "'y'" in verdict.broken[0]


def test_the_share_used_is_0_for_the_reference_and_1_at_the_limit() -> None:
    assert Bound("top1", ">=", 0.98).used(1.0, perfect=1.0) == 0
    assert Bound("top1", ">=", 0.98).used(0.98, perfect=1.0) == pytest.approx(1)
    assert Bound("max-abs", "<=", 0.5).used(0.25, perfect=0.0) == pytest.approx(0.5)
    assert Bound("top1", ">=", 1.0).used(0.99, perfect=1.0) > 1


def test_a_classifier_is_held_to_its_classes_and_an_embedding_to_its_directions() -> None:
    rows = [{"probabilities": np.ones((1, 10), np.float32)}]
    assert str(default_budget(models.mlp(), rows)) == "top1>=0.99,cosine>=0.98"
    vectors = [{"vectors": np.ones((1, 4, 5), np.float32)}]
    assert str(default_budget(models.embedding(), vectors)) == "cosine>=0.99,cosine-worst>=0.98"


def test_dense_outputs_are_held_to_their_overlap_and_labels_to_themselves() -> None:
    dense = [{"masks": np.ones((1, 2, 8, 8), np.float32), "labels": np.ones((1,), np.int64)}]
    assert str(default_budget(models.mlp(), dense)) == "overlap>=0.98,cosine>=0.99,top1>=0.99"
