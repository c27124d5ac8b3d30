"""What the optimizer may try: a recipe turns the material it is given into one more form of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx

from openclaw.execute.engines import OWN

Feed = Mapping[str, npt.NDArray[np.generic]]
"""One run's inputs: an array for every input of the model, by its name."""


@dataclass(frozen=True)
class Material:
    """What every recipe starts from.

    Attributes:
        exported: the model as the user gave it; never changed.
        fused: the same after the lossless passes, what every lower precision is made from.
        calibration: feeds that may be used to choose scales and layers; empty if the user gave none.
        feeds: feeds of the user's shapes to run the model on, whose answers matter less than their shapes.
        instructions: of this CPU, in the words of ``devices.cpu``: ``avx2``, ``avx512_vnni``, ``amx_int8``, ``bf16``...
        threads: that one inference may use.
        folder: a scratch folder that is removed afterwards.
        ends: when a recipe is to be through, by ``time.monotonic``.
        shared: what recipes of one optimization leave for each other, each under a name of its own.
    """

    exported: onnx.ModelProto
    fused: onnx.ModelProto
    calibration: Sequence[Feed]
    feeds: Sequence[Feed]
    instructions: frozenset[str]
    threads: int
    folder: Path
    ends: float = math.inf
    shared: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """A form of the model, and what was done to get it (shown in the report: passes and their counts, layers kept)."""

    model: onnx.ModelProto
    notes: Mapping[str, object] = field(default_factory=dict)


class Judge(Protocol):
    """Compares a form of the model with the exported one on the calibration feeds; 0 is equal, more is worse.

    1 is what the accuracy budget allows: the guard judges in the same way, on other data.
    """

    def __call__(self, model: onnx.ModelProto) -> float: ...


@dataclass(frozen=True)
class Recipe:
    """One way to a faster form.

    Attributes:
        name: what the report and ``--only`` call it, as ``int8-static-percentile``.
        precision: ``fp32``, ``int8``, ``int4`` or ``bf16``.
        make: builds the form; raises ``NotApplicable`` with the reason where it does not fit this model or machine.
        needs_calibration: whether it is out of reach without calibration feeds.
        engine: what the form runs on.
    """

    name: str
    precision: str
    make: Callable[[Material, Judge], Made]
    needs_calibration: bool = False
    engine: str = OWN
