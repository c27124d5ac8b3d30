"""Buffers that are used again: never while anybody can still see them, never more than was granted."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from openclaw.errors import OverBudget
from openclaw.memory.accounting import Account, Level, State
from openclaw.memory.pool.objects import Buffer, ObjectPool
from openclaw.memory.pool.sizes import PAGE, size_class

MIB = 2**20
BUDGET = 4 * MIB


@given(size=st.integers(1, 2**40))
def test_a_size_class_holds_what_was_asked_for_and_little_more(size: int) -> None:
    whole = size_class(size)
    assert size <= whole
    assert whole % PAGE == 0
    assert whole < size * 1.25 + PAGE
    assert size_class(whole) == whole


@given(sizes=st.lists(st.integers(1, 2**40), min_size=2, max_size=2).map(sorted))
def test_size_classes_keep_the_order_of_sizes(sizes: list[int]) -> None:
    assert size_class(sizes[0]) <= size_class(sizes[1])


def test_no_size_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes from 1"):
        size_class(0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Pooling(RuleBasedStateMachine):
    """Holders that write into what they got, and look whether anybody else did."""

    buffers = Bundle("buffers")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.account = Account(BUDGET)
        self.pool = ObjectPool(self.account, keep_bytes=MIB, keep_seconds=10.0, clock=self.clock)
        self.held: list[tuple[np.ndarray[tuple[int], np.dtype[np.uint8]], int]] = []
        self.mark = 0

    def _write(self, view: memoryview) -> None:
        self.mark = self.mark % 250 + 1
        array = np.frombuffer(view, np.uint8)
        array[:] = self.mark
        self.held.append((array, self.mark))

    @rule(target=buffers, size=st.integers(1, 2 * MIB), model=st.sampled_from(["", "digits"]))
    def take(self, size: int, model: str) -> Buffer:
        free = BUDGET - sum(size_class(len(array)) for array, _ in self.held)
        if size_class(size) > free:
            with pytest.raises(OverBudget):
                self.pool.take(size, model=model)
            size = 1
            if free < PAGE:
                return Buffer(memoryview(bytearray(1)))
        buffer = self.pool.take(size, model=model)
        assert len(buffer.view) == size
        self._write(buffer.view)
        return buffer

    @rule(buffer=consumes(buffers), keeps=st.booleans())
    def release(self, buffer: Buffer, keeps: bool) -> None:
        mine = [pair for pair in self.held if np.shares_memory(pair[0], np.frombuffer(buffer.view, np.uint8))]
        buffer.release()
        with pytest.raises(RuntimeError, match="released twice"):
            buffer.release()
        with pytest.raises(RuntimeError, match="after it was released"):
            _ = buffer.view
        if not keeps:
            self.held = [pair for pair in self.held if all(pair is not other for other in mine)]

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.pool.trim()
        if seconds >= 10:
            assert self.pool.kept == 0

    @rule()
    def clear(self) -> None:
        self.pool.clear()
        assert self.pool.kept == 0
        assert self.account.used(state=State.KEPT) == 0

    @invariant()
    def nobody_writes_into_what_another_holds(self) -> None:
        for array, mark in self.held:
            assert (array == mark).all()

    @invariant()
    def every_byte_is_counted_once(self) -> None:
        kept = self.pool.kept
        assert kept <= MIB
        assert self.account.used(Level.OBJECTS, state=State.KEPT) == kept
        assert self.account.used() <= BUDGET
        held = sum(size_class(len(array)) for array, _ in self.held)
        assert self.account.used(state=State.USED) == held


TestPooling = Pooling.TestCase
TestPooling.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def place_of(buffer: Buffer) -> int:
    return int(np.frombuffer(buffer.view, np.uint8).ctypes.data)


def test_a_buffer_is_used_again_once_the_last_view_of_it_is_gone() -> None:
    pool = ObjectPool(Account())
    buffer = pool.take(100_000, model="digits")
    place = place_of(buffer)
    part = np.frombuffer(buffer.view[64:], np.float32)[10:20]
    buffer.release()
    assert pool.kept == 0
    other = pool.take(100_000)
    assert place_of(other) != place
    del part
    assert pool.kept == size_class(100_000)
    assert place_of(pool.take(100_000)) == place


def test_a_buffer_that_is_simply_dropped_comes_back() -> None:
    account = Account()
    pool = ObjectPool(account)
    pool.take(100_000)
    pool.settle()
    assert account.entries() == {
        (Level.OBJECTS, "", State.USED): 0,
        (Level.OBJECTS, "", State.KEPT): size_class(100_000),
    }


def test_a_buffer_in_a_cycle_comes_back_with_the_collection_wherever_that_happens() -> None:
    pool = ObjectPool(Account())

    class Holder:
        def __init__(self) -> None:
            self.view = pool.take(100_000).view
            self.cycle = self

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(200):
            Holder()
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    pool.settle()
    assert pool.account.used(state=State.USED) == 0


def test_what_is_kept_makes_room_for_another_size() -> None:
    account = Account(2 * MIB)
    pool = ObjectPool(account)
    pool.take(2 * MIB)
    assert pool.kept == 2 * MIB
    buffer = pool.take(MIB)
    assert account.used() == MIB
    with pytest.raises(OverBudget):
        pool.take(MIB + 1)
    assert len(buffer.view) == MIB


def test_only_as_much_is_kept_as_may_be() -> None:
    pool = ObjectPool(Account(), keep_bytes=MIB)
    held = [pool.take(MIB // 2) for _ in range(4)]
    assert pool.account.used() == 2 * MIB
    del held
    assert pool.kept == MIB
    assert pool.account.used() == MIB


def test_memory_that_the_system_does_not_grant_is_no_error_of_ours() -> None:
    pool = ObjectPool(Account())
    with pytest.raises(OverBudget, match="are needed"):
        pool.take(2**62)
    assert pool.account.used() == 0


def test_threads_share_a_pool() -> None:
    account = Account(8 * MIB)
    pool = ObjectPool(account, keep_bytes=MIB)
    wrong: list[int] = []
    barrier = threading.Barrier(6)

    def work(mark: int) -> None:
        barrier.wait()
        for step in range(300):
            try:
                view = pool.take(70_000 + (mark * 31 + step * 17) % 7 * 50_000).view
            except OverBudget:
                continue
            array = np.frombuffer(view, np.uint8)
            array[:] = mark
            if not (array == mark).all():
                wrong.append(mark)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    pool.settle()
    assert not wrong
    assert account.used(state=State.USED) == 0
    assert account.peak <= 8 * MIB


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def test_memory_that_is_idle_goes_back_to_the_system() -> None:
    size = 64 * MIB
    clock = Clock()
    pool = ObjectPool(Account(), keep_bytes=size, clock=clock)
    before = resident_bytes()
    view = pool.take(size).view
    np.frombuffer(view, np.uint8)[::PAGE] = 1
    assert resident_bytes() - before > 0.9 * size
    del view
    pool.trim()
    assert resident_bytes() - before > 0.9 * size
    clock.now += 3600
    assert pool.trim() == size
    assert resident_bytes() - before < 0.1 * size
    assert pool.account.used() == 0
