"""A session bound to memory of its own, which spares it the making of values in every run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

_Array = npt.NDArray[np.generic]


class Bound:
    """Memory for up to ``most`` requests of one shape, inferred together; not for two threads at once.

    The requests lie one after the other along the first axis.

    Attributes:
        inputs: by name; what is written here is what a run infers from.
        outputs: by name; the results of the last run.
        most: requests.
    """

    __slots__ = ("_runs", "_session", "inputs", "most", "outputs")

    def __init__(
        self, session: Any, inputs: Mapping[str, _Array], outputs: Mapping[str, _Array], *, most: int = 1
    ) -> None:
        """
        Args:
            session: of onnxruntime.
            inputs: contiguous arrays of numbers, of ``most`` requests.
            outputs: the same, of the shapes that the inputs give.
            most: requests; above 1 every array's first axis has a multiple of it.
        """
        self._session = session
        self._runs: list[Callable[[], None] | None] = [None] * (most + 1)
        self.inputs = inputs
        self.outputs = outputs
        self.most = most

    def runner(self, requests: int) -> Callable[[], None]:
        """What infers the first so many requests. It raises what onnxruntime raises, also where an output would have
        another shape.
        """
        run = self._runs[requests]
        if run is None:
            run = self._runs[requests] = self._bound(requests)
        return run

    def _bound(self, requests: int) -> Callable[[], None]:
        binding = self._session.io_binding()
        for name, array in self.inputs.items():
            binding.bind_ortvalue_input(name, self._value(array, requests))
        for name, array in self.outputs.items():
            binding.bind_ortvalue_output(name, self._value(array, requests))
        return partial(self._session.run_with_iobinding, binding)

    def _value(self, array: _Array, requests: int) -> Any:
        part = array if requests == self.most else array[: len(array) // self.most * requests]
        return onnxruntime.OrtValue.ortvalue_from_numpy(part)
