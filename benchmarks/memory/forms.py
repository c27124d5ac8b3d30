"""The files that are compared: a model as it was exported, in the memory chosen for it, and in lower precision."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
from benchmarks.graph.families import Family
from benchmarks.graph.families.drawing import Feed
from benchmarks.graph.session import ANY, BUDGETS, data, written

from openclaw.memory.properties import ARENA, ROWS
from openclaw.optimizer.memory.choosing import choose
from openclaw.optimizer.model.properties import with_properties
from openclaw.optimizer.optimize import optimize

Choice = tuple[Path, str]
"""A file, and what was chosen for its memory."""
_SECONDS = 150.0
"""That choosing may take: more than an optimization has by default, which takes a smaller batch then."""


@dataclass(slots=True)
class Forms:
    """Models of one family, as they lie in a folder.

    Attributes:
        exported: the model.
        lower: what the optimizer keeps of it within the accuracy budget; names the recipe, or nothing.
    """

    folder: Path
    threads: int
    exported: onnx.ModelProto
    lower: onnx.ModelProto
    kept: str | None

    @property
    def file(self) -> Path:
        """The exported model's."""
        return self.folder / "exported.onnx"

    def chosen(self, feed: Feed, *, asked: str = "auto", seconds: float = _SECONDS) -> Choice:
        """The exported model in the memory that is chosen for these inputs."""
        return self._held("chosen", self.exported, feed, asked=asked, seconds=seconds)

    def lowered(self, feed: Feed, *, asked: str = "auto", seconds: float = _SECONDS) -> Choice:
        """The same of the form of lower precision."""
        return self._held("lower", self.lower, feed, asked=asked, seconds=seconds)

    def _held(self, name: str, model: onnx.ModelProto, feed: Feed, *, asked: str, seconds: float) -> Choice:
        path = self.folder / f"{name}.onnx"
        onnx.save(model, path)
        found = choose(model, path, [feed], threads=self.threads, asked=asked, ends=time.perf_counter() + seconds)
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
            accuracy_budget=ANY if small else BUDGETS.get(family.name, ANY),
            shapes={name: array.shape for name, array in family.feeds(1, small=small)[0].items()},
            threads=threads,
            engines=["onnxruntime"],
            memory="default",
            time_limit=time_limit,
        )
    return Forms(folder, threads, model, result.model, result.report.kept)
