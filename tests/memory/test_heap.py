"""What a loader frees goes back to the system, and buffers are kept for reuse afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

from openclaw.memory import heap

pytestmark = pytest.mark.skipif(heap._glibc() is None, reason="another C library than glibc")

LOADER = """
import ctypes
from pathlib import Path
from contextlib import nullcontext
from openclaw.memory import heap

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
MIB = 1 << 20

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 // MIB

def taken(size):
    place = libc.malloc(size)
    ctypes.memset(place, 1, size)
    return place

def loaded():
    # As a loader does: what it read is freed when what it keeps lies behind it.
    libc.free(taken(30 * MIB))
    read, kept = [], []
    for _ in range(40):
        read.append(taken(2 * MIB))
        kept.append(taken(2 * MIB))
    for place in read:
        libc.free(place)

before = resident()
with {context}:
    loaded()
print(resident() - before)
"""


def grown(context: str) -> int:
    """MiB by which a process that keeps 80 grows."""
    program = LOADER.replace("{context}", context)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return int(ended.stdout)


def test_what_is_freed_while_loading_goes_back_to_the_system() -> None:
    assert grown("nullcontext()") >= 150, "left to itself the heap keeps it, or this tests nothing"
    assert grown("heap.loading()") <= 90


def test_what_is_freed_later_can_be_given_back_too() -> None:
    program = LOADER.replace("{context}", "nullcontext()") + "\nheap.trim()\nprint(resident() - before)\n"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    kept, trimmed = map(int, ended.stdout.split())
    assert trimmed <= kept - 60


def test_loading_gives_back_although_it_fails() -> None:
    with pytest.raises(ValueError, match="no model"), heap.loading():
        raise ValueError("no model")
