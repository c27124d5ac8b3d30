"""What every metric says of answers whose distance is known."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from openclaw.optimizer.accuracy import metrics
from openclaw.optimizer.accuracy.metrics import METRICS, Array

FINITE = st.floats(-(2.0**100), 2.0**100, width=32)
NUMBERS = arrays.arrays(np.float32, arrays.array_shapes(min_dims=0, max_dims=4, max_side=4), elements=FINITE)


def answers(*batches: Array | list[object]) -> list[Mapping[str, Array]]:
    return [{"y": np.asarray(batch)} for batch in batches]


@given(NUMBERS)
@pytest.mark.parametrize("name", METRICS)
def test_a_model_agrees_with_itself_perfectly_whatever_it_answers(name: str, array: Array) -> None:
    found = METRICS[name](answers(array), answers(array.copy()))
    assert found == (1.0 if name in metrics.HIGHER_IS_BETTER else 0.0)


@given(NUMBERS, st.integers(0, 2**32 - 1))
def test_metrics_stay_in_their_range_and_are_never_nan(array: Array, seed: int) -> None:
    other = np.asarray(np.random.default_rng(seed).permutation(array.ravel()).reshape(array.shape) * np.float32(-0.5))
    for name, metric in METRICS.items():
        found = metric(answers(array), answers(other))
        assert not math.isnan(found), name
        low, high = {"top1": (0, 1), "overlap": (0, 1), "max-abs": (0, math.inf), "relative": (0, math.inf)}.get(
            name, (-1.0001, 1)
        )
        assert low <= found <= high, name


@pytest.mark.parametrize("name", METRICS)
def test_nan_on_one_side_is_never_perfect_where_numbers_are_compared(name: str) -> None:
    if name in ("top1", "overlap"):
        return
    broken = np.array([[1.0, np.nan]], np.float32)
    found = METRICS[name](answers(np.ones((1, 2), np.float32)), answers(broken))
    assert found == (-1 if name in metrics.HIGHER_IS_BETTER else math.inf)


def test_top1_counts_rows_with_the_same_highest_class_over_all_batches() -> None:
    reference = answers(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[:1])
    candidate = answers(np.eye(3, dtype=np.float32)[[0, 1, 1]], np.eye(3, dtype=np.float32)[:1])
    assert metrics.top1(reference, candidate) == 3 / 4


def test_top1_takes_the_second_axis_of_pictures_and_the_last_of_sequences() -> None:
    pictures = np.zeros((1, 2, 3, 3), np.float32)
    pictures[:, 1] = 1
    other = pictures.copy()
    other[0, :, 0, 0] = (1, 0)
    assert metrics.top1(answers(pictures), answers(other)) == 8 / 9
    tokens = np.zeros((1, 4, 2), np.float32)
    tokens[..., 0] = 1
    assert metrics.top1(answers(tokens), answers(np.flip(tokens, -1))) == 0


def test_top1_compares_labels_and_strings_as_they_are() -> None:
    assert metrics.top1(answers([1, 2, 3, 4]), answers([1, 2, 3, 5])) == 3 / 4
    assert metrics.top1(answers(["a", "b"]), answers(["a", "c"])) == 1 / 2


def test_cosines_are_of_samples_and_the_worst_sample_is_not_hidden_by_the_mean() -> None:
    reference = answers(np.array([[1, 0], [1, 0]], np.float32))
    candidate = answers(np.array([[2, 0], [0, 1]], np.float32))
    assert metrics.cosine(reference, candidate) == pytest.approx(0.5)
    assert metrics.cosine_worst(reference, candidate) == pytest.approx(0)


def test_cosine_does_not_overflow() -> None:
    large = np.full((1, 4), 3e38, np.float32)
    assert metrics.cosine(answers(large), answers(large * np.float32(0.5))) == pytest.approx(1)


def test_the_worst_output_counts() -> None:
    same, off = np.ones((1, 2), np.float32), np.array([[1, -1]], np.float32)
    reference = [{"a": same, "b": same}]
    candidate = [{"a": same, "b": off}]
    assert metrics.cosine(reference, candidate) == pytest.approx(0)
    assert metrics.max_abs(reference, candidate) == 2


def test_relative_is_relative_for_large_numbers_and_to_the_usual_size_near_zero() -> None:
    usual = np.array([[1.0, 0.0, 1.0, 0.0]], np.float32)
    off = usual + np.array([[0, 0.001, 0, 0]], np.float32)
    rms = math.sqrt(0.5)
    assert metrics.relative(answers(usual), answers(off)) == pytest.approx(0.001 / rms, rel=1e-3)
    large = np.array([[1000.0, 0.001]], np.float32)
    assert metrics.relative(answers(large), answers(large * np.float32(1.01))) < 0.01


def test_relative_is_infinite_where_the_reference_is_zero_and_the_answer_is_not() -> None:
    zeros = np.zeros((1, 3), np.float32)
    assert metrics.relative(answers(zeros), answers(zeros + 1)) == math.inf


def test_overlap_is_the_mean_jaccard_index_of_the_classes() -> None:
    reference, candidate = np.zeros((1, 2, 1, 4), np.float32), np.zeros((1, 2, 1, 4), np.float32)
    reference[0, 1, 0, :2] = 1
    candidate[0, 1, 0, :1] = 1
    # Class 1: 1 of 2; class 0 (ties go to it): 2 of 3.
    assert metrics.overlap(answers(reference), answers(candidate)) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_overlap_of_a_mask_cuts_probabilities_at_one_half_and_logits_at_zero() -> None:
    probabilities = np.array([[[[0.9, 0.4, 0.6, 0.1]]]], np.float32)
    assert metrics.overlap(answers(probabilities), answers(probabilities * 0 + [[[[0.7, 0.3, 0.9, 0.2]]]])) == 1
    logits = np.array([[[[3.0, -1.0]]]], np.float32)
    assert metrics.overlap(answers(logits), answers(np.array([[[[0.2, -5.0]]]], np.float32))) == 1
