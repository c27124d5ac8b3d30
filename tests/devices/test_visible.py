"""Variables that hide devices."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw.devices.backends import amd, ascend, nvidia
from openclaw.devices.tree import Machine
from openclaw.devices.visible import ordinals
from support.recorded import laid_out

UUIDS = ["GPU-aaaa1", "GPU-aabb2", "GPU-cccc3"]


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        (None, {0: 0, 1: 1, 2: 2}),
        ("2,0", {2: 0, 0: 1}),
        ("GPU-c", {2: 0}),
        ("gpu-aab, 0", {1: 0, 0: 1}),
        ("GPU-aa", {}),
        ("", {}),
        ("-1", {}),
        ("NoDevFiles", {}),
        ("1,7,0", {1: 0}),
        ("1,1", {}),
        ("²", {}),
    ],
)
def test_the_list_is_the_new_numbering_and_ends_at_what_is_no_device(
    value: str | None, numbers: dict[int, int]
) -> None:
    assert ordinals(UUIDS, value) == numbers


def test_each_variable_counts_what_the_one_before_left() -> None:
    assert ordinals(UUIDS, "1,2", "1") == {2: 0}


@given(st.lists(st.none() | st.text(max_size=10), max_size=6), st.lists(st.none() | st.text(max_size=12), max_size=3))
def test_numbers_are_always_counted_from_nought(uuids: list[str | None], values: list[str | None]) -> None:
    assert sorted(ordinals(uuids, *values).values()) == list(range(len(ordinals(uuids, *values))))


def test_a_hidden_device_is_shown_with_the_variable_that_hides_it(tmp_path: Path) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    first, second = nvidia.find(Machine(laid_out("nvidia-two-gpus", tmp_path), environ))
    assert first.hindrance == "it is hidden from this process by CUDA_VISIBLE_DEVICES=1"
    assert (second.hindrance, second.options) == (None, (("device_id", "0"),))
    assert "CUDA_DEVICE_ORDER is FASTEST_FIRST: CUDA may count otherwise; set it to PCI_BUS_ID" in second.notes


def test_both_variables_of_rocm_are_heard(tmp_path: Path) -> None:
    environ = {"ROCR_VISIBLE_DEVICES": "1,0", "HIP_VISIBLE_DEVICES": "0"}
    discrete, integrated = amd.find(Machine(laid_out("amd-dgpu-apu", tmp_path), environ))
    assert "hidden from this process by ROCR_VISIBLE_DEVICES=1,0, HIP_VISIBLE_DEVICES=0" in (discrete.hindrance or "")
    assert integrated.options == (("device_id", "0"),)


def test_ascends_variable_renumbers_too(tmp_path: Path) -> None:
    found = ascend.find(Machine(laid_out("ascend-310", tmp_path), {"ASCEND_RT_VISIBLE_DEVICES": "3,1"}))
    assert [dict(each.options).get("device_id") for each in found] == [None, "1", None, "0"]
