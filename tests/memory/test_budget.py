"""How a budget is shared between weights and the buffers of requests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openclaw.memory.budget import RESERVE, budget_of, for_weights

SIZES = st.integers(0, 1 << 40)


@given(SIZES, SIZES)
def test_weights_leave_what_is_taken_and_some_for_requests(budget: int, taken: int) -> None:
    weights = for_weights(budget, taken)
    assert weights + taken <= budget
    assert weights <= for_weights(budget) <= budget
    assert budget < 8 or for_weights(budget) < budget


@given(SIZES)
def test_what_is_kept_for_requests_is_theirs_without_taking_anything_from_weights(budget: int) -> None:
    share = budget - for_weights(budget)
    assert for_weights(budget, share) == for_weights(budget)
    assert for_weights(budget, share + 1) == for_weights(budget) - 1


@given(SIZES, SIZES)
def test_a_budget_is_what_is_granted_less_what_the_process_needs_or_the_setting_if_that_is_less(
    granted: int, setting: int
) -> None:
    most = budget_of(None, granted)
    assert most == max(granted - RESERVE, granted - granted // 2)
    assert budget_of(setting, granted) == min(setting, most)
    assert budget_of(setting, None) == setting


def test_without_a_setting_and_a_grant_there_is_no_bound() -> None:
    assert budget_of(None, None) is None
