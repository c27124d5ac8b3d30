"""Memory that several processes see: a nameless file in parts, each written by one process at a time.

Nothing is left behind when the last process that has it ends (memfd_create(2)). A part has an owner and a generation,
which grows with each owner: who was replaced, and does not know, finds out before it writes into what is another's now.
Two processes that want the same part ask the kernel for a lock on its header (fcntl(2)); one of them gets it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from openclaw.errors import OpenClawError

_HEADER = 16
"""Bytes: the owner's process id and the generation, 8 each."""


class Occupied(OpenClawError):  # noqa: N818 - it is no failure of this process
    """Another process owns the part."""


class Superseded(OpenClawError):  # noqa: N818 - it is no failure of this process
    """The part was given to another owner meanwhile."""


class Segment:
    """A mapping of parts of equal size. A process that was forked has it; one that was started needs its descriptor.

    Args:
        parts: how many processes own one at a time, from 1.
        size: of each part, a multiple of 8.
        name: that ``/proc/PID/maps`` shows.
        descriptor: of the segment that another process made, with as many parts of that size.

    Attributes:
        descriptor: for processes that are started, as long as this object is there.
    """

    def __init__(self, parts: int, size: int, *, name: str = "openclaw", descriptor: int | None = None) -> None:
        if parts < 1 or size < 8 or size % 8:
            raise ValueError(f"parts is {parts} and size is {size}; allowed: from 1, and multiples of 8")
        self._first = -(-parts * _HEADER // mmap.PAGESIZE) * mmap.PAGESIZE
        self._size = size
        whole = self._first + parts * size
        self.name = name
        self.parts = parts
        self.descriptor = _nameless(name, whole) if descriptor is None else descriptor
        # Of its own: the other is given back once everybody has it.
        self._locking = os.dup(self.descriptor)
        # A number is given back by nobody when the segment is gone, as a mapping is.
        self._given_back, _ = (weakref.finalize(self, os.close, each) for each in (self.descriptor, self._locking))
        self._memory = mmap.mmap(self.descriptor, whole)
        self._headers = memoryview(self._memory)[: parts * _HEADER].cast("q")

    def close(self) -> None:
        """Gives the descriptor back, once; the mapping stays as long as somebody uses it."""
        self._given_back()

    def part(self, index: int) -> Part:
        """The part ``index``; raises IndexError unless 0 <= index < parts."""
        if not 0 <= index < self.parts:
            raise IndexError(f"part is {index}; allowed: 0 to {self.parts - 1}")
        start = self._first + index * self._size
        return Part(self, index, memoryview(self._memory)[start : start + self._size])

    @contextmanager
    def _locked(self, index: int) -> Iterator[None]:
        fcntl.lockf(self._locking, fcntl.LOCK_EX, _HEADER, index * _HEADER)
        try:
            yield
        finally:
            fcntl.lockf(self._locking, fcntl.LOCK_UN, _HEADER, index * _HEADER)


class Part:
    """One part: written by its owner alone, read by any.

    Attributes:
        memory: its bytes, zeros at first; they stay when the owner changes.
    """

    def __init__(self, segment: Segment, index: int, memory: memoryview) -> None:
        self._segment = segment
        self._index = index
        self._headers = segment._headers
        self.memory = memory

    @property
    def owner(self) -> int:
        """The owner's process id; 0 when nobody owns it."""
        return self._headers[2 * self._index]

    @property
    def generation(self) -> int:
        """How many owners it has had."""
        return self._headers[2 * self._index + 1]

    def take(self) -> Tenure:
        """Makes the calling process the owner, whoever of several asks first.

        Raises:
            Occupied: another process owns it, and runs.
        """
        with self._segment._locked(self._index):
            owner = self.owner
            if owner not in (0, os.getpid()) and _runs(owner):
                raise Occupied(
                    f"part {self._index} of the shared memory {self._segment.name!r} belongs to process {owner}, "
                    "which is running"
                )
            self._headers[2 * self._index + 1] += 1
            self._headers[2 * self._index] = os.getpid()
            return Tenure(self, self.generation)

    def vacate(self) -> None:
        """Says that the owner ended: called by whoever reaped it."""
        with self._segment._locked(self._index):
            self._headers[2 * self._index] = 0


class Tenure:
    """What the owner of a part has: valid until it gives the part back, or another gets it."""

    __slots__ = ("_generation", "_part")

    def __init__(self, part: Part, generation: int) -> None:
        self._part = part
        self._generation = generation

    @property
    def valid(self) -> bool:
        """Whether the part is still this one's."""
        return self._part.generation == self._generation and self._part.owner == os.getpid()

    @property
    def memory(self) -> memoryview:
        """The part's bytes, to be written. Raises Superseded."""
        if not self.valid:
            raise Superseded(f"generation {self._generation} of this part has ended; {self._part.generation} is there")
        return self._part.memory

    def release(self) -> None:
        """Gives the part back. Raises Superseded where it is another's already, or was given back before."""
        _ = self.memory
        self._part.vacate()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _nameless(name: str, size: int) -> int:
    """A file of ``size`` zeros in memory, that is gone with the last process that has it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
