"""Requests into one batch and answers out of it: each row is copied once, into memory that is used again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from openclaw.errors import OverBudget, RequestTooLarge
from openclaw.execute.session import Array
from openclaw.memory.accounting import Account
from openclaw.memory.pool.objects import POOLED, ObjectPool
from openclaw.serving.batching.layout import SEQUENCE_AXIS, Layout


class Buffers:
    """Memory for the inputs of batches and for large outputs, used again once nobody sees it any more; on any thread.

    Args:
        pool: that it comes from; None: one without a bound.
        model: that it is counted for.
    """

    __slots__ = ("_model", "_pool")

    def __init__(self, pool: ObjectPool | None = None, model: str = "") -> None:
        self._pool = pool or ObjectPool(Account())
        self._model = model

    def array(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        """An array of any content.

        Raises:
            OverBudget: there is no memory for it now.
            RequestTooLarge: there never will be.
        """
        size = prod(shape) * dtype.itemsize
        if dtype.hasobject or size < POOLED:
            return np.empty(shape, dtype)
        try:
            memory = self._pool.take(size, model=self._model)
        except OverBudget as error:
            budget = self._pool.account.budget
            if budget is None or size <= budget:
                raise
            sentence = f"a tensor of {size:,} bytes is needed for this; server.memoryBudgetBytes is {budget:,}"
            raise RequestTooLarge(sentence) from error
        return np.frombuffer(memory.view, dtype).reshape(shape)


def gather(
    requests: Sequence[Mapping[str, Array]], layout: Layout, *, length: int = 0, buffers: Buffers | None = None
) -> dict[str, Array]:
    """The inputs of several requests, one below the other.

    Args:
        requests: inputs of the same layout by name.
        layout: says which inputs are sequences.
        length: to which sequences are filled up with zeros; 0: they are equally long.
        buffers: where to lay them.
    """
    buffers = buffers or Buffers()
    padded = layout.sequences.inputs if length and layout.sequences is not None else frozenset()
    batch = {}
    for name in layout.inputs:
        parts = [request[name] for request in requests]
        rest = parts[0].shape[1:]
        if name in padded:
            rest = (length, *rest[SEQUENCE_AXIS:])
        whole = buffers.array((sum(part.shape[0] for part in parts), *rest), parts[0].dtype)
        _lay(parts, whole, padded=name in padded)
        batch[name] = whole
    return batch


def _lay(parts: list[Array], whole: Array, *, padded: bool) -> None:
    start = 0
    for part in parts:
        end = start + part.shape[0]
        if padded and part.shape[SEQUENCE_AXIS] < whole.shape[SEQUENCE_AXIS]:
            length = part.shape[SEQUENCE_AXIS]
            whole[start:end, :length] = part
            whole[start:end, length:] = "" if whole.dtype.hasobject else 0
        else:
            whole[start:end] = part
        start = end


def split(
    outputs: Sequence[Array],
    rows: Sequence[int],
    *,
    lengths: Sequence[int] | None = None,
    cuts: Sequence[tuple[int, ...]] = (),
) -> list[list[Array]]:
    """The outputs of a batch, request by request: views, and copies only where cutting a sequence left gaps.

    Args:
        outputs: of the run.
        rows: of each request.
        lengths: of each request's sequences, where some were filled up.
        cuts: by output, the axes that are as long as the sequences.

    Raises:
        ValueError: an output has not as many rows as went in.
    """
    total = sum(rows)
    for output in outputs:
        if not output.ndim or output.shape[0] != total:
            raise ValueError(f"{total} rows went in and an output of shape {list(output.shape)} came out")
    answers = []
    start = 0
    for index, count in enumerate(rows):
        end = start + count
        views = [output[start:end] for output in outputs]
        if lengths is not None:
            views = [_cut(view, axes, length=lengths[index]) for view, axes in zip(views, cuts, strict=True)]
        answers.append(views)
        start = end
    return answers


def _cut(view: Array, axes: tuple[int, ...], *, length: int) -> Array:
    for axis in axes:
        view = view[(slice(None),) * axis + (slice(length),)]
    return np.ascontiguousarray(view)
