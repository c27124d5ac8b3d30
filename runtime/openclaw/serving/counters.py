"""Numbers that every worker process writes for itself and any of them reads for all.

One anonymous shared mapping is made before the workers are started. Each process owns one slot of it, so no
number has two writers and nothing is locked. A slot is a list of blocks, each a key and a run of 8-byte
floats: it describes itself, so a model that one worker loads later needs no agreement with the others. A
process that replaces a dead one takes over its slot and goes on adding where that one stopped: counters never
go down. Compared with files (prometheus_client's multiprocess mode) nothing is left on a disk, nothing is
opened per process, and a dead worker's counts need no file of their own; compared with asking each worker
over a socket, a worker that is stuck or dying still counts, and a scrape waits for nobody.

A process counts in memory of its own, since adding to a plain list costs a fifth of adding to a mapping, and
publishes its numbers now and then: what others see of it is that old, and that much is lost when it is killed.
An aligned 8-byte store is not torn on x86-64 and AArch64, so a reader sees each number either before or after
a change; two numbers of a block may be one request apart.
"""

from __future__ import annotations

import logging
import zlib
from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from openclaw.memory.pool.segments import Part, Segment, Tenure

log = logging.getLogger(__name__)

CELL = 8
SLOT_CELLS = 1 << 20
"""8 MiB of address space a process; the kernel gives memory only to pages that were written."""

_USED, _TAKEN, _BEAT, _SINCE, _FIRST = 0, 1, 2, 3, 4
_HEADER = 3


class SharedCounters:
    """The mapping. A process that was forked has it; one that was started is given its descriptor.

    Args:
        slots: how many processes write at the same time, the parent included if it counts too.
        cells: numbers in each slot, keys included.
        descriptor: of the mapping that another process made, with as many slots and cells.
    """

    def __init__(self, slots: int = 1, cells: int = SLOT_CELLS, *, descriptor: int | None = None) -> None:
        if slots < 1 or cells < _FIRST:
            raise ValueError(f"slots is {slots} and cells is {cells}; allowed: from 1 and from {_FIRST}")
        self._segment = Segment(slots, cells * CELL, name="openclaw-counters", descriptor=descriptor)
        self.descriptor = self._segment.descriptor
        self.slots = slots

    def close(self) -> None:
        """Gives the descriptor back; the mapping stays as long as somebody uses it."""
        self._segment.close()

    def slot(self, index: int) -> Slot:
        """The slot ``index`` as it stands; raises IndexError unless 0 <= index < slots."""
        if not 0 <= index < self.slots:
            raise IndexError(f"slot is {index}; allowed: 0 to {self.slots - 1}")
        return Slot(self._segment.part(index))

    def taken_by_others(self, slot: int) -> int:
        """Bytes of memory that the owners of all slots but one say they have taken."""
        return sum(each.taken for index, each in enumerate(self) if index != slot and each.pid)

    def stalled(self, now: float) -> float:
        """Seconds for which the worst of all processes has neither ended a run nor turned its event loop."""
        return max((each.stalled(now) for each in self if each.pid), default=0.0)

    def __iter__(self) -> Iterator[Slot]:
        """All slots, used or not."""
        return (self.slot(index) for index in range(self.slots))


class Slot:
    """One process's numbers: written by that process alone, read by any."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._tenure: Tenure | None = None
        self._bytes = part.memory
        self.cells: memoryview[float] = part.memory.cast("d")
        self._values: NDArray[np.float64] = np.frombuffer(part.memory, dtype=np.float64)

    def take(self) -> None:
        """Makes the calling process the owner. Raises Occupied while another one is, and runs."""
        self._tenure = self._part.take()
        self.cells[_TAKEN] = self.cells[_BEAT] = self.cells[_SINCE] = 0.0
        if not self.cells[_USED]:
            self.cells[_USED] = float(_FIRST)

    def leave(self) -> None:
        """Says that the owner ended: called by whoever reaped it."""
        self._part.vacate()

    @property
    def mine(self) -> bool:
        """Whether it was taken with this object, and nobody was given it since."""
        return self._tenure is not None and self._tenure.valid

    @property
    def pid(self) -> int:
        """The owner's process id; 0 when nobody owns the slot."""
        return self._part.owner

    @property
    def taken(self) -> int:
        """Bytes of memory that the owner has taken, of what all processes may take together."""
        return int(self.cells[_TAKEN])

    @taken.setter
    def taken(self, size: int) -> None:
        self.cells[_TAKEN] = float(size)

    def beat(self, now: float, *, since: float) -> None:
        """Says that the owner's event loop turns.

        Args:
            now: by the monotonic clock, which all processes of a machine share; seconds.
            since: when the oldest run of a model began that has not ended; ``now`` where there is none.
        """
        self.cells[_SINCE] = since
        self.cells[_BEAT] = now

    def stalled(self, now: float) -> float:
        """Seconds since the owner was last known to get on; 0.0 of one that has not said so yet."""
        beat, since = self.cells[_BEAT], self.cells[_SINCE]
        return max(0.0, now - beat, beat - since) if beat else 0.0

    def block(self, key: bytes, size: int) -> int | None:
        """Where in ``cells`` the ``size`` numbers of ``key`` begin; zeros unless this slot had them already.

        None when the slot is full: serving goes on, and the log says so.
        """
        for known, start, length in self._entries():
            if known == key and length == size:
                return start
        used = int(self.cells[_USED])
        start = used + _HEADER + _cells_of(key)
        if start + size > len(self.cells):
            log.error("no room for the metric %r: its slot of %d bytes is full", key, self._bytes.nbytes)
            return None
        self._bytes[(used + _HEADER) * CELL : (used + _HEADER) * CELL + len(key)] = key
        self.cells[used], self.cells[used + 1], self.cells[used + 2] = len(key), size, _checksum(key, size)
        # Last: a reader looks no further than this, so it finds an entry whole or not at all.
        self.cells[_USED] = start + size
        return start

    def read(self, start: int, size: int) -> list[float]:
        """The numbers from ``start`` on."""
        values: list[float] = self._values[start : start + size].tolist()
        return values

    def write(self, start: int, values: list[float]) -> None:
        """Replaces the numbers from ``start`` on."""
        self.cells[start : start + len(values)] = memoryview(array("d", values))

    def blocks(self) -> Iterator[tuple[bytes, NDArray[np.float64]]]:
        """Key and numbers of every block; the numbers are a view that keeps changing."""
        for key, start, size in self._entries():
            yield key, self._values[start : start + size]

    def _entries(self) -> Iterator[tuple[bytes, int, int]]:
        at, used = _FIRST, int(self.cells[_USED])
        while at < used:
            length, size, checksum = (int(self.cells[at + i]) for i in range(_HEADER))
            key = bytes(self._bytes[(at + _HEADER) * CELL : (at + _HEADER) * CELL + length])
            # On AArch64 the owner's stores may show in another order: then the rest waits for the next scrape.
            if checksum != _checksum(key, size):
                return
            start = at + _HEADER + _cells_of(key)
            yield key, start, size
            at = start + size


def _cells_of(key: bytes) -> int:
    return -(-len(key) // CELL)


def _checksum(key: bytes, size: int) -> int:
    # Not 0 for an entry that is still all zeros.
    return zlib.crc32(key, size) ^ 0x5EED
