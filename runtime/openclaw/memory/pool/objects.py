"""Buffers that are used again: mappings of their own, in a few sizes, kept for a while after their last use.

A new mapping costs a page fault for each page that is written, and a heap may hold on to what was freed. Here a
buffer's pages are there already when it is used again, and go back to the system as a whole when it is not.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from openclaw.errors import OverBudget
from openclaw.memory.accounting import Account, Claim, Level, State
from openclaw.memory.pool.sizes import size_class

POOLED = 64 * 1024
"""Bytes from which on memory is worth a buffer of a pool, and is counted; the heap is as good for less."""
KEEP_BYTES = 64 * 1024 * 1024
"""Bytes that wait to be used again, at most."""
KEEP_SECONDS = 10.0
"""After which a buffer that nobody wanted goes back to the system."""


class Buffer:
    """Writable memory of one holder. It goes back when the holder has let go, and so has every view of it."""

    __slots__ = ("_view", "size")

    def __init__(self, view: memoryview) -> None:
        self._view: memoryview | None = view
        self.size = len(view)

    @property
    def view(self) -> memoryview:
        """Its bytes, of any content at first. Raises RuntimeError once the buffer was released."""
        if self._view is None:
            raise RuntimeError(f"a buffer of {self.size} bytes is used after it was released")
        return self._view

    def release(self) -> None:
        """Lets go of it; views that others have stay good, and keep the memory from being used again.

        Raises:
            RuntimeError: it was released before.
        """
        if self._view is None:
            raise RuntimeError(f"a buffer of {self.size} bytes was released twice")
        self._view = None


class Memory(NamedTuple):
    """What buffers are made of.

    Attributes:
        pages: writable bytes that can be viewed.
        owner: what must live as long as they are used.
    """

    pages: mmap.mmap | npt.NDArray[np.uint8]
    owner: object


class _Slab(NamedTuple):
    """Memory of one size class, and the bytes that are counted for it."""

    memory: Memory
    claim: Claim


class _Kept(NamedTuple):
    slab: _Slab
    since: float


class ObjectPool:
    """Buffers from an account; on any thread.

    Args:
        account: that grants the bytes.
        keep_bytes: that wait to be used again, at most.
        keep_seconds: after which ``trim`` gives them back.
        allocate: makes memory of so many bytes; raises OSError where there is none.
        level: under which they are counted.
        clock: seconds.
    """

    def __init__(
        self,
        account: Account,
        *,
        keep_bytes: int = KEEP_BYTES,
        keep_seconds: float = KEEP_SECONDS,
        allocate: Callable[[int], Memory] | None = None,
        level: Level = Level.OBJECTS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.account = account
        self._keep_bytes = keep_bytes
        self._keep_seconds = keep_seconds
        self._allocate = allocate or _private
        self._level = level
        self._clock = clock
        self._lock = threading.Lock()
        self._free: dict[int, list[_Kept]] = {}
        self._kept = 0
        # Whoever lets go of the last view may be in the middle of anything, so it only leaves a word here.
        self._returned: deque[_Slab] = deque()
        self._lent: dict[int, weakref.ref[object]] = {}
        account.on_shortage(self._give_back)

    @property
    def kept(self) -> int:
        """Bytes that wait to be used again."""
        with self._lock:
            self._settle()
            return self._kept

    def take(self, size: int, *, model: str = "") -> Buffer:
        """A buffer of ``size`` bytes from 1.

        Raises:
            OverBudget: the account does not grant them, or the system does not.
        """
        wanted = size_class(size)
        with self._lock:
            self._settle()
            kept = self._free.get(wanted)
            slab = kept.pop().slab if kept else None
            if slab is not None:
                self._kept -= wanted
        if slab is None:
            slab = self._new(wanted, model)
        else:
            slab.claim.turn(State.USED, model=model)
        return Buffer(self._lend(slab)[:size])

    def trim(self) -> int:
        """Gives back what nobody used for a while; bytes."""
        with self._lock:
            self._settle()
            return self._drop_before(self._clock() - self._keep_seconds)

    def settle(self) -> None:
        """Counts what came back meanwhile."""
        if self._returned:
            with self._lock:
                self._settle()

    def clear(self) -> int:
        """Gives back everything that is not in use; bytes."""
        with self._lock:
            self._settle()
            return self._drop_before(float("inf"))

    def _new(self, size: int, model: str) -> _Slab:
        claim = self.account.take(size, level=self._level, model=model)
        try:
            return _Slab(self._allocate(size), claim)
        except OSError as error:
            claim.release()
            raise OverBudget(size, free=0) from error
        except BaseException:
            claim.release()
            raise

    def _lend(self, slab: _Slab) -> memoryview:
        """A view of the mapping; the slab comes back when it and every view made of it are gone."""
        # Views hold what they are views of: this array, whose end can be watched, unlike a memoryview's.
        owner = np.frombuffer(slab.memory.pages, np.uint8)
        key = id(slab)
        returned, lent = self._returned, self._lent

        def came_back(_: object) -> None:
            lent.pop(key, None)
            returned.append(slab)

        lent[key] = weakref.ref(owner, came_back)
        return owner.data

    def _settle(self) -> None:
        while self._returned:
            slab = self._returned.popleft()
            size = slab.claim.size
            if self._kept + size > self._keep_bytes:
                _drop(slab)
                continue
            slab.claim.turn(State.KEPT, model="")
            self._free.setdefault(size, []).append(_Kept(slab, self._clock()))
            self._kept += size

    def _drop_before(self, when: float) -> int:
        dropped = 0
        for size, kept in list(self._free.items()):
            # The latest are used again first, so the oldest are at the beginning.
            old = 0
            while old < len(kept) and kept[old].since <= when:
                _drop(kept[old].slab)
                old += 1
            del kept[:old]
            dropped += old * size
            if not kept:
                del self._free[size]
        self._kept -= dropped
        return dropped

    def _give_back(self, missing: int) -> None:
        """Somebody needs memory: the longest unused goes first."""
        with self._lock:
            self._settle()
            for when in sorted({kept.since for each in self._free.values() for kept in each}):
                if missing <= 0:
                    return
                missing -= self._drop_before(when)


def _private(size: int) -> Memory:
    return Memory(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), None)


def _drop(slab: _Slab) -> None:
    # The mapping ends with its last reference: closing it could meet a view that is just going.
    slab.claim.release()
