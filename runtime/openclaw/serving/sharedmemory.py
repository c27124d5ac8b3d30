"""System shared memory: a client on the same machine hands tensors over in POSIX shared memory, by name.

Source: Triton's extension_shared_memory.md, as tritonclient speaks it. A region is part of an object in
``/dev/shm``, registered under a name; a tensor lies in a window of a region.

A region is read and written through its file, never mapped. Its owner may cut the object short or change
it at any time: in a mapping, that would end this process with SIGBUS, or change bytes between their check
and their use. So inputs are copied once, into memory that is ours.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from openclaw.errors import InvalidRequest, RequestTooLarge
from openclaw.memory.accounting import Account, Level
from openclaw.memory.pool.objects import POOLED, ObjectPool
from openclaw.serving.shown import shown

FOLDER = Path("/dev/shm")

_LONGEST_KEY = 255
_LONGEST_NAME = 255
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
# Named semaphores of other programs: none of them is a tensor.
_FOREIGN = "sem."


class RegionStatus(TypedDict):
    """A region as the protocol lists it."""

    name: str
    key: str
    offset: int
    byte_size: int


class Region:
    """A registered part of a shared memory object; its file is closed with the last reference to it."""

    def __init__(self, descriptor: int, status: RegionStatus, pool: ObjectPool) -> None:
        self._descriptor = descriptor
        self._pool = pool
        self.status = status
        weakref.finalize(self, os.close, descriptor)

    def read(self, offset: int, size: int) -> memoryview:
        """A copy of ``size`` bytes; raises InvalidRequest if the object was cut short meanwhile, or OverBudget."""
        memory = self._pool.take(size).view if size >= POOLED else np.empty(size, np.uint8).data
        done = 0
        while done < size:
            count = os.preadv(self._descriptor, [memory[done:]], self.status["offset"] + offset + done)
            if count == 0:
                raise self._cut_short()
            done += count
        return memory

    def write(self, data: memoryview, offset: int) -> None:
        """Puts ``data`` at ``offset`` of the region, where it must fit."""
        start = self.status["offset"] + offset
        if os.fstat(self._descriptor).st_size < start + len(data):
            raise self._cut_short()
        done = 0
        while done < len(data):
            done += os.pwrite(self._descriptor, data[done:], start + done)

    def _cut_short(self) -> InvalidRequest:
        return InvalidRequest(
            f"shared memory region {shown(self.status['name'])} ends early: "
            f"its object {shown(self.status['key'])} is smaller than when it was registered"
        )


class Window(NamedTuple):
    """``size`` bytes at ``offset`` of a region, within its bounds: where one tensor lies."""

    region: Region
    offset: int
    size: int

    def read(self) -> memoryview:
        """A copy of the bytes."""
        return self.region.read(self.offset, self.size)

    def write(self, data: bytes | memoryview, *, where: str) -> None:
        """Puts ``data`` at the window's start.

        Raises:
            InvalidRequest: the data is larger than the window, or the region than its object.
        """
        view = memoryview(data)
        if len(view) > self.size:
            raise InvalidRequest(
                f"{where} has {len(view)} bytes; shared_memory_byte_size in region "
                f"{shown(self.region.status['name'])} is {self.size}"
            )
        self.region.write(view, self.offset)


class Regions:
    """The regions registered with one process; used from one thread, windows from any.

    Args:
        max_bytes: of one tensor read from a region, as much as a request may bring: an object may claim to be
            larger than all memory.
        max_regions: how many there may be at a time; each holds an open file.
        pool: of the copies, and account of the regions: their pages may be first touched by an answer, and are this
            process's then. None: without a bound.
    """

    def __init__(
        self, *, max_bytes: int, max_regions: int = 1024, pool: ObjectPool | None = None, folder: Path = FOLDER
    ) -> None:
        self._pool = pool or ObjectPool(Account())
        self._max_bytes = max_bytes
        self._max_regions = max_regions
        self._folder = folder
        self._regions: dict[str, Region] = {}

    def register(self, name: str, *, key: object, offset: object = 0, byte_size: object) -> None:
        """Makes part of a shared memory object known as ``name``.

        Args:
            name: of the region, chosen by the client.
            key: the object's name as ``shm_open`` takes it, with or without the leading slash.
            offset: where the region begins in the object.
            byte_size: of the region.

        Raises:
            InvalidRequest: the name is taken, or there is no such part of such an object.
            OverBudget: the region does not fit into the memory that was granted.
        """
        if not 0 < len(name) <= _LONGEST_NAME:
            raise InvalidRequest(f"the region's name has {len(name)} characters; allowed: 1 to {_LONGEST_NAME}")
        if name in self._regions:
            raise InvalidRequest(f"shared memory region {shown(name)} is registered already; unregister it first")
        if len(self._regions) >= self._max_regions:
            raise InvalidRequest(f"{self._max_regions} shared memory regions are registered; no more are allowed")
        file_name = _file_name(key)
        start, size = _size(offset, "offset", least=0), _size(byte_size, "byte_size", least=1)
        descriptor = _open(self._folder / file_name, str(key))
        region = Region(descriptor, {"name": name, "key": str(key), "offset": start, "byte_size": size}, self._pool)
        held = os.fstat(descriptor).st_size
        if start + size > held:
            raise InvalidRequest(f"key {shown(key)} has {held} bytes; offset {start} and byte_size {size} exceed them")
        claim = self._pool.account.take(size, level=Level.SHARED)
        weakref.finalize(region, claim.release)
        self._regions[name] = region

    def unregister(self, name: str | None = None) -> None:
        """Forgets one region, or all; requests under way keep theirs. One that is not there is no error."""
        if name is None:
            self._regions.clear()
        else:
            self._regions.pop(name, None)

    def status(self, name: str | None = None) -> list[RegionStatus]:
        """The regions, or the one; raises InvalidRequest if there is no such region."""
        regions: Iterable[Region] = self._regions.values() if name is None else [self._find(name)]
        return [region.status for region in regions]

    def window(self, name: object, *, offset: object, size: object, where: str) -> Window:
        """The window of a tensor's parameters ``shared_memory_region``, ``_offset`` and ``_byte_size``.

        Raises:
            InvalidRequest: there is no such region, or the window reaches over its end.
            RequestTooLarge: the window is larger than a request may be.
        """
        if not isinstance(name, str):
            raise InvalidRequest(f"{where}: shared_memory_region is {shown(name)}; a string is needed")
        region = self._find(name)
        start = _size(0 if offset is None else offset, f"{where}: shared_memory_offset", least=0)
        length = _size(size, f"{where}: shared_memory_byte_size", least=0)
        held = region.status["byte_size"]
        if start + length > held:
            raise InvalidRequest(
                f"{where}: shared_memory_offset {start} and shared_memory_byte_size {length} "
                f"exceed region {shown(name)} of {held} bytes"
            )
        if length > self._max_bytes:
            raise RequestTooLarge(
                f"{where}: shared_memory_byte_size is {length}; at most {self._max_bytes} are allowed"
            )
        return Window(region, start, length)

    def _find(self, name: str) -> Region:
        region = self._regions.get(name)
        if region is None:
            raise InvalidRequest(f"there is no shared memory region {shown(name)}; register it first")
        return region


def _file_name(key: object) -> str:
    if not isinstance(key, str):
        raise InvalidRequest(f"key is {shown(key)}; the name of a shared memory object is needed")
    name = key.removeprefix("/")
    if (
        not name
        or name in {".", ".."}
        or "/" in name
        or "\0" in name
        or len(name.encode(errors="replace")) > _LONGEST_KEY
    ):
        raise InvalidRequest(
            f"key is {shown(key)}; allowed: 1 to {_LONGEST_KEY} bytes without a slash, but for one at the beginning"
        )
    if name.startswith(_FOREIGN):
        raise InvalidRequest(f"key is {shown(key)}; names that begin with {_FOREIGN} are semaphores")
    return name


def _size(value: object, name: str, *, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
        raise InvalidRequest(f"{name} is {shown(value)}; a number of bytes from {least} is needed")
    return value


def _open(path: Path, key: str) -> int:
    try:
        descriptor = os.open(path, _FLAGS)
    except (OSError, UnicodeEncodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file has such a name"
        raise InvalidRequest(f"shared memory object {shown(key)} cannot be opened: {reason}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidRequest(f"key {shown(key)} is not a shared memory object")
    return descriptor
