"""How large an arena's first region has to be so that the arena holds the least. Pure but for what measures.

An arena that fits in its first region holds no more than that. Which region is enough cannot be worked out: chunks are
cut from it and merged again in the order of a run, and free ones between those in use may be too small for the next. So
sizes are tried. Measured on onnxruntime 1.31 (2 threads), the smallest region that is enough, through the bytes that
are in use at most: 1.02 on ResNet50, MobileNetV3 and an Inception-like net, 1.05 to 1.25 on U-Net, 1.5 on BERT-base.
"""

from __future__ import annotations

from collections.abc import Callable

_FIRST = 65 / 64
"""Through what is in use at most: the first size that is tried. No region is used to its last byte."""
_STEP = 5 / 4
_NEAR = 1 / 50
"""Of what is in use: where less than that lies between a size that is too small and the least, it is near enough."""
_PAGE = 4096


def smallest_region(held: Callable[[int], int | None], *, needed: int, below: int) -> int | None:
    """Bytes of the first region with which an arena holds the least; sizes that hold ``below`` or more are not tried.

    Args:
        held: measures what the arena holds with a first region of so many bytes; None: it cannot, and the search ends.
        needed: bytes that are in use at most, which no smaller region has room for.
        below: bytes that another arena holds.

    Returns:
        A multiple of 4 KiB, or None: no size that was tried holds less than ``below``.
    """
    best, least, short = None, below, needed
    size = _pages(needed * _FIRST)
    while size < least and (found := held(size)) is not None:
        if found < least:
            best, least = size, found
        if found > size:
            short = size
        if least - short <= needed * _NEAR:
            break
        size = _pages(min(short * _STEP, (short + least) / 2))
    return best


def _pages(size: float) -> int:
    return -int(-size // _PAGE) * _PAGE
