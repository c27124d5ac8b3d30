"""What an optimization gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from openclaw.optimizer.results.report import Report


@dataclass(frozen=True)
class Result:
    """What an optimization gave.

    Attributes:
        model: ready to be saved. Its weights are outside only where it was passed through untouched with weights so.
        report: how it was chosen.
        origin: the files that ``model`` still needs, the model's own first; none where all is in it.
    """

    model: onnx.ModelProto
    report: Report
    origin: tuple[Path, ...] = ()
