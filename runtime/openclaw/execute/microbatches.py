"""Runs a large batch a few rows at a time: the activations of those rows are all that has to be held.

On a CPU many models take no longer for it, as their operators find enough to do in a few rows. What is held for
activations falls with the rows, while settings of the arena (``memory.arena``) only save what the arena wastes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from openclaw.execute.outputs import Empty, arrays_for
from openclaw.graph.rows import rows_of

_Array = npt.NDArray[np.generic]

Run = Callable[[Any, Mapping[str, _Array]], list[_Array]]
"""``InferenceSession.run``: the outputs of those names, in order; of None all."""


class MicroBatches:
    """Runs of a model whose rows are independent, at most ``rows`` at once; for several threads at once."""

    __slots__ = ("_empty", "_rows", "_run")

    def __init__(self, run: Run, rows: int, empty: Empty = np.empty) -> None:
        """
        Args:
            run: runs the model; it may raise whatever it likes.
            rows: that are run at once, from 1.
            empty: makes the arrays that outputs are put together in.
        """
        self._empty = empty
        self._run = run
        self._rows = rows

    def run(self, names: Any, feeds: Mapping[str, _Array]) -> list[_Array]:
        """As ``run``; each output is put together from what the parts gave.

        Inputs that do not have the same number of rows are run as they are, and so are all where an output has another
        number of rows than the inputs, or rows of different sizes.
        """
        total = rows_of(feeds)
        if total is None or total <= self._rows:
            return self._run(names, feeds)
        whole: list[_Array] = []
        for start in range(0, total, self._rows):
            end = min(start + self._rows, total)
            part = self._run(names, {name: array[start:end] for name, array in feeds.items()})
            if not whole:
                whole = arrays_for(feeds, (((total, *each.shape[1:]), each.dtype) for each in part), self._empty)
            for output, given in zip(whole, part, strict=True):
                if given.shape != (end - start, *output.shape[1:]):
                    return self._run(names, feeds)
                output[start:end] = given
        return whole
