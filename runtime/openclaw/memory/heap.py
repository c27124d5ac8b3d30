"""What glibc's heap keeps of memory that was freed while a model was loaded.

A loader frees about as much as it keeps: what it read the weights into, and those that it laid out anew for kernels.
glibc takes what is larger than a threshold from the system and gives it back when it is freed, but raises the threshold
each time, up to 32 MiB (mallopt(3), ``M_MMAP_THRESHOLD``): from then on what was freed stays in the heap, between
weights that are kept. Measured on BERT-base, 418 MiB of weights, with onnxruntime 1.31: a process of 673 MiB, at its
peak 695; with a threshold that stays 458 and 564. Other C libraries are left as they are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_WHILE_LOADING = 128 << 10  # glibc's own before it raises it
_AFTERWARDS = 32 << 20  # the most that glibc takes, and would come to by itself


@cache
def _glibc() -> Any | None:
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None
    except OSError:
        return None


@contextmanager
def loading() -> Iterator[None]:
    """What is freed inside of it goes back to the system; of several threads at once, for the first that is through.

    Afterwards buffers are kept for reuse as they are in any process that freed large ones.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_M_MMAP_THRESHOLD, _WHILE_LOADING)
    try:
        yield
    finally:
        library.mallopt(_M_MMAP_THRESHOLD, _AFTERWARDS)
        library.mallopt(_M_TRIM_THRESHOLD, 2 * _AFTERWARDS)
        trim()


def trim() -> None:
    """Gives pages that are free back to the system, wherever in the heap they are; takes milliseconds."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
