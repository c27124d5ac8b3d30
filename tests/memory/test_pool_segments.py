"""Memory between processes: one owner of a part at a time, and none that was replaced writes into it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from openclaw.memory.pool.segments import Occupied, Segment, Superseded, Tenure

RACER = """
import sys
from openclaw.memory.pool.segments import Occupied, Segment
segment = Segment(2, 64, descriptor=int(sys.argv[1]))
sys.stdin.read(1)
try:
    tenure = segment.part(1).take()
except Occupied as error:
    print("lost", error, flush=True)
else:
    tenure.memory[:4] = b"mine"
    print("won", flush=True)
sys.stdin.read(1)
"""


TURNS = """
import os, sys, time
from openclaw.memory.pool.segments import Occupied, Segment
part, turns = Segment(1, 64, descriptor=int(sys.argv[1])).part(0), int(sys.argv[2])
mine = os.getpid().to_bytes(8, "little")
print("there", flush=True)
sys.stdin.read(1)
taken, end = 0, time.monotonic() + 20
while taken < turns and time.monotonic() < end:
    try:
        tenure = part.take()
    except Occupied:
        continue
    tenure.memory[:8] = mine
    found = bytes(tenure.memory[:8])
    tenure.release()
    if found != mine:
        sys.exit(f"in turn {taken} the part held {found!r}")
    taken += 1
print(taken, flush=True)
sys.stdin.read(1)
"""


def racer(segment: Segment, program: str = RACER, *arguments: str) -> subprocess.Popen[str]:
    descriptor = segment.descriptor
    return subprocess.Popen(
        [sys.executable, "-c", program, str(descriptor), *arguments],
        pass_fds=(descriptor,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_of_two_processes_that_want_one_part_one_gets_it_and_the_other_is_told_who() -> None:
    segment = Segment(2, 64, name="openclaw-test")
    racers = [racer(segment) for _ in range(2)]
    try:
        for each in racers:
            assert each.stdin is not None
            each.stdin.write("g")
            each.stdin.flush()
        said = [each.stdout.readline() for each in racers if each.stdout is not None]
        winner = racers[0 if said[0].startswith("won") else 1]
        assert sorted(line.split()[0] for line in said) == ["lost", "won"]
        (lost,) = (line for line in said if line.startswith("lost"))
        assert f"belongs to process {winner.pid}, which is running" in lost
        assert bytes(segment.part(1).memory[:4]) == b"mine"
        assert segment.part(1).owner == winner.pid
        with pytest.raises(Occupied):
            segment.part(1).take()
        segment.part(0).take()
    finally:
        for each in racers:
            each.communicate("x")
    # Who died without a word holds nothing.
    tenure = segment.part(1).take()
    assert bytes(tenure.memory[:4]) == b"mine"
    assert segment.part(1).owner == os.getpid()
    segment.close()


def test_two_processes_take_turns_thousands_of_times_and_none_finds_what_the_other_wrote() -> None:
    segment = Segment(1, 64, name="openclaw-test")
    turns = 20_000
    racers = [racer(segment, TURNS, str(turns)) for _ in range(2)]
    try:
        assert [each.stdout.readline() for each in racers if each.stdout is not None] == ["there\n"] * 2
        for each in racers:
            assert each.stdin is not None
            each.stdin.write("g")
            each.stdin.flush()
        taken = [each.stdout.readline() for each in racers if each.stdout is not None]
    finally:
        for each in racers:
            each.communicate("x")
    assert [each.returncode for each in racers] == [0, 0]
    assert all(int(count) > 0 for count in taken), taken
    # Two that count at once would lose a turn.
    assert segment.part(0).generation == sum(map(int, taken))
    assert segment.part(0).owner == 0
    segment.close()


def test_who_was_replaced_finds_out_before_it_writes() -> None:
    part = Segment(1, 64).part(0)
    first = part.take()
    first.memory[:5] = b"first"
    part.vacate()
    second = part.take()
    assert not first.valid
    with pytest.raises(Superseded, match="generation 1 of this part has ended; 2 is there"):
        _ = first.memory
    with pytest.raises(Superseded):
        first.release()
    second.release()
    with pytest.raises(Superseded):
        second.release()
    assert part.owner == 0
    assert bytes(part.memory[:5]) == b"first"


def descriptors(name: str) -> int:
    """How many this process has of a segment, mappings among them."""
    return sum(name in os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink())


def test_a_segment_that_nobody_uses_has_no_descriptors() -> None:
    name = "openclaw-forgotten"
    segment = Segment(1, 64, name=name)
    part = segment.part(0)
    before = descriptors(name)
    segment.close()
    segment.close()
    assert descriptors(name) == before - 1 > 0
    del segment
    part.take().release()
    del part
    assert descriptors(name) == 0


class Tenures(RuleBasedStateMachine):
    """Owners that take, lose and give back two parts."""

    tenures = Bundle("tenures")

    def __init__(self) -> None:
        super().__init__()
        self.segment = Segment(2, 64)
        self.latest: list[Tenure | None] = [None, None]

    @rule(target=tenures, index=st.integers(0, 1))
    def take(self, index: int) -> Tenure:
        tenure = self.segment.part(index).take()
        tenure.memory[:8] = self.segment.part(index).generation.to_bytes(8, "little")
        self.latest[index] = tenure
        return tenure

    @rule(index=st.integers(0, 1))
    def vacate(self, index: int) -> None:
        self.segment.part(index).vacate()
        self.latest[index] = None

    @rule(tenure=consumes(tenures))
    def release(self, tenure: Tenure) -> None:
        if tenure in self.latest:
            tenure.release()
            self.latest[self.latest.index(tenure)] = None
        with pytest.raises(Superseded):
            tenure.release()

    @rule(tenure=tenures)
    def use(self, tenure: Tenure) -> None:
        assert tenure.valid == (tenure in self.latest)

    @invariant()
    def a_part_holds_what_its_last_owner_wrote(self) -> None:
        for index in range(2):
            part = self.segment.part(index)
            assert int.from_bytes(part.memory[:8], "little") == part.generation
            assert (part.owner != 0) == (self.latest[index] is not None)

    def teardown(self) -> None:
        self.segment.close()


TestTenures = Tenures.TestCase
TestTenures.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize(("parts", "size"), [(0, 64), (1, 0), (1, 12), (-1, 64)])
def test_a_segment_that_cannot_be_is_refused(parts: int, size: int) -> None:
    with pytest.raises(ValueError, match="allowed: from 1, and multiples of 8"):
        Segment(parts, size)


def test_a_part_that_is_not_there_is_refused() -> None:
    with pytest.raises(IndexError, match="allowed: 0 to 1"):
        Segment(2, 64).part(2)
