"""Runs on OpenVINO, of which one that fails leaves something behind.

After a run whose inputs do not suit each other OpenVINO fails for the shapes of the run before as well, until it has
run others (onnxruntime-ep-openvino 1.8, found by trying: dimensions of the failed run are kept where the new ones are
taken to be known). So one bad request would fail all good ones of a client whose shapes never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from openclaw.execute.microbatches import Run
from openclaw.graph.signature import Signature

_Array = npt.NDArray[np.generic]

_SIZES = (1, 2, 3)
"""Of free dimensions: of two that a model takes, one differs from the run before."""


class Recovering:
    """Runs of a model, each of which does as if the one before had not failed."""

    __slots__ = ("_blanks", "_run")

    def __init__(self, run: Run, signature: Signature) -> None:
        """
        Args:
            run: runs the model; it may raise whatever it likes.
            signature: of the model.
        """
        self._run = run
        self._blanks = [{spec.name: spec.blank(size) for spec in signature.inputs} for size in _SIZES]

    def run(self, names: Any, feeds: Mapping[str, _Array]) -> list[_Array]:
        """As ``run``; what fails is run once more, as it may be a run before it that was at fault."""
        try:
            return self._run(names, feeds)
        except Exception:  # onnxruntime's have no common base
            self._recover(names)
        try:
            return self._run(names, feeds)
        except Exception:
            self._recover(names)
            raise

    def _recover(self, names: Any) -> None:
        for blank in self._blanks:
            try:
                self._run(names, blank)
            except Exception:  # the next has other shapes; where none runs, nothing is lost
                continue
            return
