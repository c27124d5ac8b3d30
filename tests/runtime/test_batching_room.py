"""Larger batches are run only where there is memory for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from openclaw.errors import InferenceFailed
from openclaw.execute.session import Array
from openclaw.graph.signature import Signature, TensorSpec
from openclaw.serving.batching.measuring import profile_model
from openclaw.serving.batching.room import Room
from openclaw.serving.batching.settings import BatchingSettings

MIB = 1 << 20


class Machine:
    """Memory, and an arena in it that doubles as it grows, and gives nothing back."""

    def __init__(self, size: int, row: int) -> None:
        self.size, self.row = size, row
        self.held = row
        self.rows: list[int] = []

    def left(self) -> int:
        return self.size - self.held

    def run(self, names: Sequence[str], arrays: Mapping[str, Array]) -> list[Array]:
        self.rows.append(len(arrays["x"]))
        while self.held < self.rows[-1] * self.row:
            self.held *= 2
        return [arrays["x"] * 2]


@given(st.integers(1, 512), st.integers(1, 64))
def test_no_batch_needs_more_memory_than_there_is(size: int, row: int) -> None:
    machine = Machine(max(size, 3 * row) * MIB, row * MIB)
    room = Room(machine.left, machine.row)
    for rows in (2, 4, 8, 16, 32):
        if not room.fits(rows):
            break
        before = machine.left()
        machine.run([], {"x": np.zeros((rows, 1))})
        room.took(rows, before=before)
    assert machine.left() >= 0


@given(st.integers(0, 1 << 40), st.integers(1, 1 << 30), st.integers(1, 4096))
def test_the_most_that_fits_fits_and_one_more_does_not(left: int, grown: int, elements: int) -> None:
    room = Room(lambda: left, grown, elements)
    most = room.most()
    assert most is not None
    assert room.fits(most)
    assert not room.fits(most + 1)
    assert grown * most / elements <= left


def test_every_batch_fits_where_what_is_left_is_not_known() -> None:
    assert Room(lambda: None, 1 << 40).fits(1 << 20)


def profiled(machine: Machine) -> tuple[int | None, str]:
    spec = TensorSpec("x", "FP32", (-1, 4))
    signature = Signature((spec,), (TensorSpec("y", "FP32", (-1, 4)),))
    settings = BatchingSettings(max_batch_size=32)
    found = profile_model(machine.run, signature, settings=settings, room=Room(machine.left, machine.row))
    return found.most, found.reason


def test_measuring_ends_before_memory_does_and_says_so() -> None:
    machine = Machine(300 * MIB, 10 * MIB)
    most, reason = profiled(machine)
    assert most is not None
    assert max(machine.rows) == most
    assert 2 <= most < 32
    assert reason.endswith(f"; there is no memory to run more than {most} at once")


def test_with_memory_for_all_every_size_is_measured() -> None:
    machine = Machine(10_000 * MIB, MIB)
    most, reason = profiled(machine)
    assert (most, max(machine.rows)) == (None, 32)
    assert "memory" not in reason


class Failing(Machine):
    """Works a number of times, and never again."""

    def __init__(self, times: int) -> None:
        super().__init__(10_000 * MIB, MIB)
        self.times = times

    def run(self, names: Sequence[str], arrays: Mapping[str, Array]) -> list[Array]:
        if len(self.rows) == self.times:
            raise InferenceFailed("out of memory")
        return super().run(names, arrays)


def test_a_model_that_fails_while_it_is_measured_is_served_and_has_no_second_run_beside_the_first() -> None:
    found = {reason: most for most, reason in map(profiled, map(Failing, range(1, 7)))}
    assert set(found.values()) == {1}
    assert "batching is off: the model failed while it was measured" in found
    assert profiled(Failing(12))[1]
