"""Large outputs of a session in memory that somebody else provides.

The arrays that ``InferenceSession.run`` gives are pieces of the arena. It cannot use them again while anybody reads
them, so it grows for the next run, and stays as large. An output that is bound to an array is written there instead,
and its memory can be asked for before the run
(https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from openclaw.errors import RequestError
from openclaw.graph.rows import rows_of
from openclaw.graph.signature import Signature, TensorSpec
from openclaw.memory.pool.objects import POOLED

_Array = npt.NDArray[np.generic]

_Kind = tuple[tuple[int, ...], np.dtype[np.generic]]
"""Shape and datatype."""

Empty = Callable[[tuple[int, ...], np.dtype[np.generic]], _Array]
"""Makes an array of a shape, of any content."""

_NOT_BOUND = ("BYTES", "BF16")
"""What numpy has no plain memory for, as onnxruntime would write or read it."""


def arrays_for(feeds: Mapping[str, _Array], kinds: Iterable[_Kind], empty: Empty) -> list[_Array]:
    """Arrays of these shapes and datatypes by ``empty``.

    Who was let in with large inputs is not refused for its outputs, which would cost it all that it has sent: its
    inputs are free again soon.

    Args:
        feeds: what the outputs will be computed from.
        kinds: of the outputs.
        empty: makes them.

    Raises:
        RequestError: ``empty`` refuses, and the inputs are small.
    """
    kinds = tuple(kinds)
    try:
        return [empty(shape, dtype) for shape, dtype in kinds]
    except RequestError:
        if sum(array.nbytes for array in feeds.values()) < POOLED:
            raise
        return [np.empty(shape, dtype) for shape, dtype in kinds]


class BoundOutputs:
    """A session whose large outputs lie in arrays that ``empty`` makes.

    They do where their shapes can be told beforehand: all dimensions are the signature's, but for the first, which may
    be the number of rows. ``run`` is the session's, for several threads at once.
    """

    __slots__ = ("_binds", "_empty", "_outputs", "_session")

    def __init__(self, session: Any, signature: Signature, empty: Empty) -> None:
        """
        Args:
            session: of onnxruntime, on the CPU.
            signature: of its model.
            empty: asked before a run; it may refuse by raising a RequestError.
        """
        self._session = session
        self._empty = empty
        self._outputs = {spec.name: spec for spec in signature.outputs if _told_by_rows(spec)}
        self._binds = all(spec.datatype not in _NOT_BOUND for spec in signature.inputs)

    def run(self, names: Sequence[str], feeds: Mapping[str, _Array], options: Any = None) -> list[_Array]:
        """As ``InferenceSession.run``."""
        kinds = self._kinds(names, feeds)
        if kinds is None or all(prod(shape) * dtype.itemsize < POOLED for shape, dtype in kinds.values()):
            results: list[_Array] = self._session.run(names, feeds, options)
            return results
        outputs = dict(zip(kinds, arrays_for(feeds, kinds.values(), self._empty), strict=True))
        try:
            self._run_bound(feeds, outputs, options)
        except Exception:
            # Also where an output has other rows than the inputs. If it fails again, its error is the one to tell.
            results = self._session.run(names, feeds, options)
            self._binds = False
            return results
        return [outputs[name] for name in names]

    def _kinds(self, names: Sequence[str], feeds: Mapping[str, _Array]) -> dict[str, _Kind] | None:
        """Shapes and datatypes of the outputs of a run, by name; None: they cannot be told, or not be bound."""
        if not self._binds:
            return None
        rows = rows_of(feeds)
        kinds = {}
        for name in names:
            spec = self._outputs.get(name)
            first = rows if spec is None or spec.shape[0] == -1 else spec.shape[0]
            if spec is None or first is None:
                return None
            kinds[name] = (first, *spec.shape[1:]), spec.dtype
        return kinds

    def _run_bound(self, feeds: Mapping[str, _Array], outputs: Mapping[str, _Array], options: Any) -> None:
        binding = self._session.io_binding()
        # A value points at its array's memory, which must lie in order.
        inputs = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        self._session.run_with_iobinding(binding, options)


def _told_by_rows(spec: TensorSpec) -> bool:
    return spec.datatype not in _NOT_BOUND and bool(spec.shape) and -1 not in spec.shape[1:]
