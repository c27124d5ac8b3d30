"""The files that are compared: a model as it was exported, in the memory chosen for it, and in lower precision."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
from benchmarks.graph.families import Family
from benchmarks.graph.families.drawing import Feed
from benchmarks.graph.session import ANY, data, written
from benchmarks.memory.records import Lowered

from openclaw.memory.properties import ARENA, ROWS
from openclaw.optimizer.memory.choosing import Chooser
from openclaw.optimizer.model.properties import with_properties
from openclaw.optimizer.optimize import optimize
from openclaw.optimizer.results.report import Report

Choice = tuple[Path, str]
"""A file, and what was chosen for its memory."""
LEAST = "least"
"""What is asked of the memory of lower precisions: their target is of memory alone, and latency is told beside it."""


@dataclass(slots=True)
class Forms:
    """Models of one family, as they lie in a folder.

    Attributes:
        exported: the model.
        lower: what the optimizer keeps of it within the accuracy budget.
        told: of that; without a recipe it is the exported model.
    """

    folder: Path
    threads: int
    exported: onnx.ModelProto
    lower: onnx.ModelProto
    told: Lowered

    @property
    def file(self) -> Path:
        """The exported model's."""
        return self.folder / "exported.onnx"

    def chosen(self, feed: Feed, *, asked: str, seconds: float) -> Choice:
        """The exported model in the memory that is chosen for these inputs, within so many seconds."""
        return self._held("chosen", self.exported, feed, asked=asked, seconds=seconds)

    def lowered(self, feed: Feed, *, seconds: float) -> Choice:
        """The form of lower precision in the least memory."""
        return self._held("lower", self.lower, feed, asked=LEAST, seconds=seconds)

    def _held(self, name: str, model: onnx.ModelProto, feed: Feed, *, asked: str, seconds: float) -> Choice:
        path = self.folder / f"{name}.onnx"
        onnx.save(model, path)
        ends = time.perf_counter() + seconds
        found = Chooser(model, path, [feed], threads=self.threads, asked=asked, ends=ends).chosen()
        onnx.save(with_properties(model, found.memory.properties(), without=(ARENA, ROWS)), path)
        return path, found.report.kept


def made(
    family: Family, folder: Path, *, threads: int, small: bool, time_limit: float, say: Callable[[str], None]
) -> Forms:
    """Draws a family's model, and has it optimized as `benchmarks.graph` does."""
    say(f"{family.name}: building")
    model = family.build(small=small)
    onnx.save(model, folder / "exported.onnx")
    say(f"{family.name}: optimizing, int8")
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as samples:
        result = optimize(
            model,
            precision="int8",
            calibration=written(data(family, small=small)[0], Path(samples)),
            # What is lost of so few numbers says nothing; whole models have the budget that users have unasked.
            accuracy_budget=ANY if small else None,
            shapes={name: array.shape for name, array in family.feeds(1, small=small)[0].items()},
            threads=threads,
            engines=["onnxruntime"],
            memory="default",
            time_limit=time_limit,
        )
    told = as_record(result.report)
    say(f"{family.name}: {told.recipe or 'as exported'}, {told.precision}, after {result.report.seconds:.0f} s")
    return Forms(folder, threads, model, result.model, told)


def as_record(report: Report) -> Lowered:
    """What an optimization kept, and how near it is; where that is exact, which lower precision came nearest."""
    kept = next((each for each in report.candidates if each.name == report.kept), None)
    precision = "fp32" if kept is None else kept.precision
    refused = [each for each in report.candidates if each.precision != "fp32" and each.outcome != "kept"]
    nearest = min(refused, key=lambda each: each.accuracy.budget_used if each.accuracy else math.inf, default=None)
    return Lowered(
        recipe=report.kept,
        precision=precision,
        budget=report.budget,
        accuracy=kept.accuracy.values if kept is not None and kept.accuracy else {},
        judged_on=report.judged_on,
        refused=f"{nearest.name}: {nearest.reason}" if nearest is not None and precision == "fp32" else None,
    )
