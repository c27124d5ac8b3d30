"""What is only padding does not count, and everything else does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw.optimizer.accuracy.budget import parse
from openclaw.optimizer.accuracy.padding import without_padding

MASK = np.array([[1, 1, 1, 0], [1, 0, 0, 0]], np.int64)


def hidden(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2, 4, 3)).astype(np.float32)


def spoiled(array: np.ndarray, mask: np.ndarray = MASK) -> np.ndarray:
    """Other numbers where nobody reads them."""
    return np.where(mask[..., None] == 0, array + 100, array).astype(np.float32)


@pytest.mark.parametrize("budget", ["cosine>=1", "cosine-worst>=1", "top1>=1", "max-abs<=0", "relative<=0"])
def test_answers_at_padding_may_be_anything(budget: str) -> None:
    feeds = [{"input_ids": np.ones((2, 4), np.int64), "attention_mask": MASK}]
    reference, candidate = [{"y": hidden()}], [{"y": spoiled(hidden())}]
    verdict = parse(budget).judge(reference, candidate, feeds)
    assert verdict.within
    assert verdict.used == 0
    assert not parse("max-abs<=0").judge(reference, candidate).within, "without the inputs all of it counts"


def test_answers_elsewhere_count_as_much_as_without_padding_beside_them() -> None:
    feeds = [{"attention_mask": MASK}]
    budget = parse("cosine>=0,cosine-worst>=0,top1>=0,max-abs<=9")
    padded = budget.judge([{"y": hidden()}], [{"y": spoiled(hidden(1))}], feeds)
    alone = budget.judge(
        [{"y": hidden()[:1, :3]}, {"y": hidden()[1:, :1]}], [{"y": hidden(1)[:1, :3]}, {"y": hidden(1)[1:, :1]}]
    )
    assert padded.values == pytest.approx(dict(alone.values))


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("padding_mask", MASK),
        ("mask_positions", MASK),
        ("attention_mask", MASK.astype(np.float32)),
        ("attention_mask", MASK * 2),
        ("attention_mask", MASK[:, :3]),
    ],
)
def test_what_is_no_mask_masks_nothing(name: str, mask: np.ndarray) -> None:
    answers = [{"y": hidden()}]
    assert without_padding(answers, [{name: mask}]) == answers


def test_of_two_masks_none_is_taken() -> None:
    answers = [{"y": hidden()}]
    assert without_padding(answers, [{"attention_mask": MASK, "decoder_attention_mask": MASK}]) == answers


def test_outputs_of_other_shapes_stay_whole() -> None:
    vectors, scalar = np.ones((2, 4), np.float32), np.float32(3).reshape(())
    parts = without_padding([{"y": hidden(), "vectors": vectors, "scalar": scalar}], [{"attention_mask": MASK}])
    assert np.array_equal(np.concatenate([part["vectors"] for part in parts]), vectors)
    assert all(part["scalar"] == 3 for part in parts)
    assert [part["y"].shape for part in parts] == [(1, 3, 3), (1, 1, 3)]


def test_a_sample_that_is_all_padding_breaks_nothing() -> None:
    feeds = [{"attention_mask": np.zeros((2, 4), np.int64)}]
    assert parse("cosine>=1,top1>=1,relative<=0").judge([{"y": hidden()}], [{"y": hidden(1)}], feeds).within


def test_what_is_not_finite_breaks_the_budget_even_at_padding() -> None:
    wrong = hidden()
    wrong[1, 3, 0] = np.nan
    assert not parse("cosine>=0").judge([{"y": hidden()}], [{"y": wrong}], [{"attention_mask": MASK}]).within


def test_the_users_metric_gets_everything() -> None:
    seen = []

    def metric(reference: dict[str, np.ndarray], candidate: dict[str, np.ndarray]) -> float:
        seen.append(candidate["y"].shape)
        return 1.0

    parse("metric>=1", metric).judge([{"y": hidden()}], [{"y": hidden()}], [{"attention_mask": MASK}])
    assert set(seen) == {(2, 4, 3)}


@given(st.lists(st.lists(st.integers(0, 1), min_size=5, max_size=5), min_size=1, max_size=4))
def test_every_position_that_is_not_masked_is_there_once(rows: list[list[int]]) -> None:
    mask = np.array(rows, np.int64)
    array = np.arange(mask.size * 2, dtype=np.float32).reshape(*mask.shape, 2)
    parts = without_padding([{"y": array}], [{"attention_mask": mask}])
    assert np.array_equal(np.concatenate([part["y"][0] for part in parts]), array[mask != 0])
