"""Buffers that stay in memory, as far as the system lets them."""

from __future__ import annotations

import logging
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from openclaw.errors import ConfigInvalid, OverBudget
from openclaw.memory.accounting import Account, Level
from openclaw.memory.pool.choice import VARIABLE, pool_of
from openclaw.memory.pool.locked import CannotLockError, LockedPool, locked, pinned
from openclaw.memory.pool.objects import Memory
from openclaw.memory.pool.sizes import size_class

KIB = 1024
SIZE = 128 * KIB
LIMITED = """
import os, resource, sys
from contextlib import suppress
from openclaw.memory.accounting import Account, Level
from openclaw.memory.pool.choice import VARIABLE, pool_of
from openclaw.memory.pool.locked import LockedPool
resource.setrlimit(resource.RLIMIT_MEMLOCK, (int(sys.argv[1]), int(sys.argv[1])))
if os.getuid() == 0:
    with suppress(OSError):  # root of a namespace that has nobody else is not the machine's
        os.setresuid(65534, 65534, 65534)  # root may lock whatever the limit
account = Account()
pool = LockedPool(account)
held = [pool.take(128 * 1024) for _ in range(4)]
for each in held:
    each.view[:] = bytes(len(each.view))
print(account.used(Level.LOCKED), account.used(Level.OBJECTS))
del each
held.clear()
pool.clear()
held = [pool.take(256 * 1024) for _ in range(2)]
print(account.used(Level.LOCKED), account.used(Level.OBJECTS))
"""


def with_limit(limit: int) -> tuple[list[list[int]], str]:
    """Bytes locked and not locked in a process with that limit: of four buffers, then of two larger ones."""
    done = subprocess.run([sys.executable, "-c", LIMITED, str(limit)], capture_output=True, text=True, check=True)
    return [[int(word) for word in line.split()] for line in done.stdout.splitlines()], done.stderr


def locked_kib() -> int:
    """Of this process, as the kernel counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmLck:"))


def may_lock(size: int) -> bool:
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return limit == resource.RLIM_INFINITY or limit >= size


@pytest.mark.skipif(not may_lock(1024 * KIB), reason="this machine lets nobody lock a megabyte")
def test_pages_are_locked_while_they_are_held_and_no_longer() -> None:
    account = Account()
    pool = LockedPool(account)
    before = locked_kib()
    buffer = pool.take(SIZE, model="digits")
    assert locked_kib() - before == SIZE // KIB
    assert account.used(Level.LOCKED, "digits") == SIZE
    buffer.release()
    del buffer
    assert pool.clear() == SIZE
    assert locked_kib() == before
    assert account.used() == 0


def test_a_limit_of_zero_works_unlocked_and_says_so_once() -> None:
    counts, said = with_limit(0)
    assert counts == [[0, 4 * SIZE], [0, 4 * SIZE]]
    assert said.count("are not locked") == 1
    assert "buffers beyond 0 bytes" in said


def test_what_is_beyond_the_limit_is_not_locked() -> None:
    counts, said = with_limit(2 * SIZE)
    assert counts == [[2 * SIZE, 2 * SIZE], [2 * SIZE, 2 * SIZE]]
    assert said.count("are not locked") == 1


def test_the_budget_holds_for_locked_and_other_buffers_together(caplog: pytest.LogCaptureFixture) -> None:
    def never(size: int) -> Memory:
        raise CannotLockError("not here")

    account = Account(2 * SIZE)
    pool = LockedPool(account, lock=never)
    with caplog.at_level(logging.WARNING):
        held = [pool.take(SIZE), pool.take(SIZE)]
        with pytest.raises(OverBudget):
            pool.take(1)
    assert [record.getMessage() for record in caplog.records] == [
        "buffers beyond 0 bytes are not locked: not here (RLIMIT_MEMLOCK)"
    ]
    assert account.used(Level.OBJECTS) == 2 * SIZE
    held.clear()
    assert pool.kept == 2 * SIZE
    assert pool.take(SIZE)


def test_memory_of_a_driver_is_pooled_like_any_other() -> None:
    """What pins pages hands out an array, and what must live as long as it."""
    owners: list[bytearray] = []

    def pin(size: int) -> Memory:
        owners.append(bytearray(size))
        return Memory(np.frombuffer(owners[-1], np.uint8), owners[-1])

    pool = LockedPool(Account(), lock=pin)
    buffer = pool.take(SIZE - 1)
    buffer.view[:3] = b"abc"
    assert len(owners) == 1
    assert bytes(owners[0][:3]) == b"abc"
    assert len(owners[0]) == size_class(SIZE - 1)
    buffer.release()
    pool.take(SIZE)
    assert len(owners) == 1


def test_a_cpu_build_pins_nothing() -> None:
    assert pinned() is None


def test_memory_that_is_not_there_is_no_question_of_locking() -> None:
    with pytest.raises(OSError, match="Cannot allocate memory"):
        locked(2**62)


def test_the_environment_says_whether_buffers_are_locked() -> None:
    assert not isinstance(pool_of(Account(), {}), LockedPool)
    assert not isinstance(pool_of(Account(), {VARIABLE: "off"}), LockedPool)
    assert isinstance(pool_of(Account(), {VARIABLE: "on"}), LockedPool)
    with pytest.raises(ConfigInvalid, match="OPENCLAW_LOCK_BUFFERS is 'yes'; allowed: off, on"):
        pool_of(Account(), {VARIABLE: "yes"})
