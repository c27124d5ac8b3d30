"""Positions of sequences that are only padding: nobody reads what a model answers there, so no metric counts it.

A mask is an integer input [batch, length] of zeros and ones whose name ends in ``mask`` (``attention_mask``); one that
names padding (``padding_mask``) is often the other way round, and is not taken for one. Of an output [batch, length,
width] only the positions where it is not 0 count. Outputs of two axes are left whole: a vector may happen to be as long
as the sequence. Where several masks fit, nothing is left out, for they may contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from openclaw.optimizer.accuracy.metrics import Answers
from openclaw.optimizer.recipe import Feed

Array = npt.NDArray[np.generic]


def without_padding(answers: Answers, feeds: Sequence[Feed]) -> Answers:
    """The answers to ``feeds`` at the positions that count, sample by sample where a mask is among the inputs."""
    if not feeds:
        return answers
    return [part for answer, feed in zip(answers, feeds, strict=True) for part in _parts(answer, feed)]


def _parts(answer: Mapping[str, Array], feed: Feed) -> Iterator[Mapping[str, Array]]:
    masks = {name: mask for name, array in answer.items() if (mask := _mask_of(array, feed)) is not None}
    if not masks:
        yield answer
        return
    batch = len(next(iter(masks.values())))
    for row in range(batch):
        yield {name: _part(array, row, batch=batch, mask=masks.get(name)) for name, array in answer.items()}


def _part(array: Array, row: int, *, batch: int, mask: Array | None) -> Array:
    if mask is not None:
        return array[row : row + 1, mask[row] != 0]
    # What has no axis for samples belongs to each of them.
    return array[row : row + 1] if array.ndim and len(array) == batch else array


def _mask_of(array: Array, feed: Feed) -> Array | None:
    if array.ndim != 3:
        return None
    found = [given for name, given in feed.items() if given.shape == array.shape[:2] and _masks(name, given)]
    return found[0] if len(found) == 1 else None


def _masks(name: str, given: Array) -> bool:
    lower = name.lower()
    return (
        lower.endswith("mask")
        and "pad" not in lower
        and given.dtype.kind in "iu"
        and bool(np.isin(given, (0, 1)).all())
    )
