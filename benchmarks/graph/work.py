"""How long it takes to optimize a real model: ResNet50, as a call, and as a command in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from benchmarks.graph.families.resnet50 import RESNET50
from benchmarks.graph.session import ANY, data, written

from openclaw.errors import OpenClawError
from openclaw.execute.engines import PROPERTY
from openclaw.memory.properties import ARENA, ROWS
from openclaw.optimizer.optimize import optimize
from openclaw.optimizer.results.result import Result


@dataclass(frozen=True, slots=True)
class Work:
    """ResNet50 to be optimized, always with the same arguments but the precision.

    Attributes:
        folder: for all files, the cache among them.
        exported, samples: files of the model and of what calibrates it.
        shapes: that are timed.
        threads: of one inference.
    """

    folder: Path
    exported: Path
    samples: Path
    shapes: Mapping[str, tuple[int, ...]]
    threads: int

    @classmethod
    def made(cls, folder: Path, *, small: bool, threads: int) -> Work:
        """With its files written."""
        exported, samples = folder / "resnet50.onnx", folder / "samples"
        onnx.save(RESNET50.build(small=small), exported)
        samples.mkdir()
        written(data(RESNET50, small=small)[0], samples)
        shapes = {name: array.shape for name, array in RESNET50.feeds(1, small=small)[0].items()}
        return cls(folder, exported, samples, shapes, threads)

    def optimized(self, precision: str, *, engines: Sequence[str] = ()) -> tuple[Result, float]:
        """What comes out, on one of these engines or on any, and seconds that it took."""
        began = time.perf_counter()
        result = optimize(
            self.exported,
            precision=precision,
            calibration=self.samples,
            accuracy_budget=ANY,
            shapes=self.shapes,
            engines=engines,
            threads=self.threads,
            cache=self.folder / "cache",
        )
        return result, time.perf_counter() - began

    def command(self) -> tuple[float, Mapping[str, object]]:
        """Seconds of `openclaw optimize` with ``auto``, from its start to its end; and its report."""
        report = self.folder / "report.json"
        shapes = [f"--shape={name}={','.join(map(str, shape))}" for name, shape in self.shapes.items()]
        output, cache = self.folder / "command.onnx", self.folder / "cache"
        places = [f"--output={output}", f"--report={report}", f"--cache={cache}", f"--calibration={self.samples}"]
        asked = [f"--accuracy-budget={ANY}", f"--threads={self.threads}", *shapes]
        command = [sys.executable, "-m", "openclaw", "optimize", str(self.exported), *places, *asked]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        seconds = time.perf_counter() - began
        if done.returncode:
            raise OpenClawError(f"openclaw optimize: {done.stderr.strip()[-300:]}")
        told: Mapping[str, object] = json.loads(report.read_text())
        return seconds, told


def described(result: Result) -> str:
    """A form, with the engine and the memory that its file names."""
    named = {each.key: each.value for each in result.model.metadata_props}
    said = [f"{key} {named[key]}" for key in (PROPERTY, ARENA, ROWS) if key in named]
    return ", ".join([result.report.kept or "the exported model", *said])
