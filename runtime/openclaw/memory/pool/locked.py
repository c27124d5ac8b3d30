"""Buffers whose pages stay in memory: locked (mlock(2)), or pinned by a device's driver where there is one.

A locked page is never written to a swap device and needs no fault to be used, however long it lay idle. That takes away
the tail of what a machine short of memory does to a request; it makes no copy faster. Pinned memory does: a device
reads it without a copy of the driver's.

How much may be locked is the process's limit (RLIMIT_MEMLOCK, setrlimit(2); 8 MiB on many systems, and in containers
often 64 KiB or 0). What is over it works as well, from pages that are not locked.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from openclaw.memory.accounting import Account, Level
from openclaw.memory.pool.objects import Buffer, Memory, ObjectPool
from openclaw.memory.pool.sizes import size_class

log = logging.getLogger(__name__)

_PINNING = ("CUDAExecutionProvider", "NvTensorRTRTXExecutionProvider")
"""Providers whose devices read host memory that onnxruntime allocates for them."""


class CannotLockError(Exception):
    """The system locks no more pages for this process."""


class LockedPool(ObjectPool):
    """Buffers of locked pages as far as the system allows, and of others beyond.

    Args:
        account: that grants the bytes.
        lock: makes memory of so many bytes that stays; raises CannotLockError.
        options: of :class:`ObjectPool`, for both kinds together.
    """

    def __init__(self, account: Account, *, lock: Callable[[int], Memory] | None = None, **options: Any) -> None:
        super().__init__(account, **options)
        self._locked = ObjectPool(account, allocate=lock or locked, level=Level.LOCKED, **options)
        self._most: int | None = None

    @property
    def kept(self) -> int:
        """Bytes that wait to be used again."""
        return super().kept + self._locked.kept

    def take(self, size: int, *, model: str = "") -> Buffer:
        """A buffer of ``size`` bytes from 1, locked where that can be. Raises OverBudget."""
        if self._most is None or self._fits(size):
            try:
                return self._locked.take(size, model=model)
            except CannotLockError as error:
                self._refused(error)
        return super().take(size, model=model)

    def trim(self) -> int:
        """Gives back what nobody used for a while; bytes."""
        return super().trim() + self._locked.trim()

    def settle(self) -> None:
        """Counts what came back meanwhile."""
        super().settle()
        self._locked.settle()

    def clear(self) -> int:
        """Gives back everything that is not in use; bytes."""
        return super().clear() + self._locked.clear()

    def _fits(self, size: int) -> bool:
        """Whether so much is below what was ever locked; what waits to be used again may be."""
        used = self.account.used(Level.LOCKED) - self._locked.kept
        return self._most is not None and used + size_class(size) <= self._most

    def _refused(self, error: CannotLockError) -> None:
        if self._most is None:
            held = self.account.used(Level.LOCKED)
            log.warning("buffers beyond %d bytes are not locked: %s (RLIMIT_MEMLOCK)", held, error)
        # What is kept in another size would be in the way of the next one.
        self._locked.clear()
        self._most = self.account.used(Level.LOCKED)


def locked(size: int) -> Memory:
    """Memory of whole pages that stay; raises CannotLockError, or OSError where there is none at all."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # They are unlocked with the mapping (mlock(2), "Notes").
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if _mlock()(ctypes.c_void_p(address), ctypes.c_size_t(size)):
        raise CannotLockError(os.strerror(ctypes.get_errno()))
    return Memory(memory, None)


def pinned() -> Callable[[int], Memory] | None:
    """What allocates memory that a device of an installed provider reads without a copy; None without such a device.

    It takes an onnxruntime that is built for that device: a CPU build has no such allocator.
    """
    import onnxruntime

    for device in getattr(onnxruntime, "get_ep_devices", list)():
        if device.ep_name in _PINNING:
            place = device.memory_info(onnxruntime.OrtDeviceMemoryType.HOST_ACCESSIBLE)
            if place is not None:
                return lambda size: _pinned(size, place)
    return None


def _pinned(size: int, place: Any) -> Memory:
    import onnxruntime

    try:
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type([size], np.uint8, memory_info=place)
    except Exception as error:
        # onnxruntime's exceptions have no common base below Exception.
        raise CannotLockError(str(error)) from error
    return Memory(value.numpy(), value)


def _mlock() -> Any:
    return ctypes.CDLL(None, use_errno=True).mlock
