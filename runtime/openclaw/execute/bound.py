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
    """Inferences one after the other over the same memory; not for two threads at once.

    Attributes:
        inputs: by name; what is written here is what ``run`` infers from.
        outputs: by name; the results of the last run.
        run: infers. Raises what onnxruntime raises, also where an output would have another shape.
    """

    __slots__ = ("inputs", "outputs", "run")

    def __init__(self, session: Any, inputs: Mapping[str, _Array], outputs: Mapping[str, _Array]) -> None:
        """
        Args:
            session: of onnxruntime, on the CPU.
            inputs: contiguous arrays of numbers.
            outputs: the same, of the shapes that the inputs give.
        """
        self.inputs = inputs
        self.outputs = outputs
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        self.run: Callable[[], None] = partial(session.run_with_iobinding, binding)
