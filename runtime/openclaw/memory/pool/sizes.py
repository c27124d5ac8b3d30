"""Sizes in which memory is taken, so that what one request gave back fits the next: four for each doubling.

A buffer is less than a quarter larger than what was asked for, as in jemalloc's size classes
(https://jemalloc.net/jemalloc.3.html, "size classes").
"""

from __future__ import annotations

PAGE = 4096
"""The smallest size, and what every size is a multiple of: the pages of all machines we know are as large, or more."""

_STEPS = 2
"""Binary digits behind the first: 2 make four sizes for each doubling."""


def size_class(size: int) -> int:
    """The least size of the classes that holds ``size`` bytes, from 1."""
    if size <= 0:
        raise ValueError(f"size is {size}; bytes from 1 are needed")
    grain = max(PAGE, 1 << max(0, (size - 1).bit_length() - 1 - _STEPS))
    return -(-size // grain) * grain
