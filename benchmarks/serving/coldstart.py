"""From the start of the process to the first answered inference, and where the time goes.

The model lies in the page cache and is optimized already: what onnxruntime would do to its graph at each start was done
once, as an image builder or a node cache would have it.
"""

from __future__ import annotations

import compileall
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from http.client import HTTPException
from pathlib import Path

import onnx
import onnxruntime
from benchmarks.serving import wire
from benchmarks.serving.models import RESNET50, ServedModel
from benchmarks.serving.server import Server, ServerError, spawned
from benchmarks.serving.session import samples_of
from benchmarks.serving.subjects import SUBJECTS, Served, cores

import openclaw

ALLOWED = 1.0  # seconds
_LIMIT = 60.0  # seconds that one start may take
_POLL = 0.002  # seconds
_PARTS = Path(__file__).parent / "coldstart_parts.py"


@dataclass(frozen=True, slots=True)
class ColdStart:
    """One start, in seconds. The parts are of a process of their own that does the same things one after the other.

    Attributes:
        interpreter: until Python runs the first line.
        imports: everything that `openclaw serve` imports.
        session: onnxruntime reads the model.
        warm_up: the first inference.
        rest: of the total, what is none of these: configuration, socket, whatever else is done before it is ready,
            the first request and its answer; less, or below zero, as the server does some of all this at the same time.
        total: to the first answered inference.
    """

    interpreter: float
    imports: float
    session: float
    warm_up: float
    rest: float
    total: float


def optimized() -> ServedModel:
    """ResNet50 as onnxruntime's optimizers leave it."""

    def build() -> onnx.ModelProto:
        with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as folder:
            options = onnxruntime.SessionOptions()
            options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
            # It warns that layouts are those of this machine, which is what is wanted.
            options.log_severity_level = 3
            onnxruntime.InferenceSession(RESNET50.file(), options, providers=["CPUExecutionProvider"])
            return onnx.load(options.optimized_model_filepath)

    return ServedModel("resnet50-optimized", build, RESNET50.sample, threads=None, batch=1)


def cold_starts(rounds: int, say: Callable[[str], None]) -> list[ColdStart]:
    """Starts openclaw so many times.

    Raises:
        ServerError: it does not answer.
    """
    served = Served(SUBJECTS[0], optimized())
    model, request = served.model.file(), wire.post(served.model.name, samples_of(served.model, 1)[0], binary=True)
    # As in an image: Python would write it itself where it may, and else compile every module at each start.
    compileall.compile_dir(Path(openclaw.__file__).parent, quiet=2)
    modules = _imported(served)
    starts = []
    for number in range(rounds):
        parts, total = _parts(served, model, modules), _total(served, request)
        interpreter, imports, session, warm_up = parts
        rest = total - sum(parts)
        starts.append(ColdStart(interpreter, imports, session, warm_up, rest, total))
        say(f"start {number + 1} of {rounds}: {total:.3f} s")
    return starts


def medians(starts: Sequence[ColdStart]) -> ColdStart:
    """Of each part."""
    names = [each.name for each in fields(ColdStart)]
    return ColdStart(**{name: statistics.median(getattr(each, name) for each in starts) for name in names})


def _total(served: Served, request: wire.Post) -> float:
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as folder:
        server = spawned(served, folder=Path(folder))
        try:
            _until_ready(server)
            wire.ask(server.port, request)
            return time.monotonic() - server.started
        finally:
            server.stop()


def _until_ready(server: Server) -> None:
    tick = threading.Event()
    while time.monotonic() < server.started + _LIMIT:
        if server.process.poll() is not None:
            raise ServerError(f"it ended with {server.process.returncode}:\n{server.log.read_text(errors='replace')}")
        try:
            if json.loads(wire.get(server.port, "/v2/health/ready")).get("ready"):
                return
        except (OSError, HTTPException, ValueError):
            # Nothing listens yet; looking again costs the server less than this client's own start did.
            pass
        tick.wait(_POLL)
    raise ServerError(f"it was not ready within {_LIMIT:.0f} s")


def _imported(served: Served) -> list[str]:
    """The package's modules that a server has imported once it is ready, in their order (-X importtime)."""
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as folder:
        server = spawned(served, folder=Path(folder), variables={"PYTHONPROFILEIMPORTTIME": "1"})
        try:
            _until_ready(server)
            return imported_modules(server.log.read_text(errors="replace"))
        finally:
            server.stop()


def imported_modules(log: str) -> list[str]:
    """Of openclaw, from what the interpreter writes about each import: two times and the name, by bars."""
    lines = [line.split("|") for line in log.splitlines() if line.startswith("import time:")]
    names = [line[-1].strip() for line in lines if len(line) == 3]
    # What is run with -m is named, too, and would run again.
    return [name for name in dict.fromkeys(names) if name.split(".")[0] == "openclaw" and "__main__" not in name]


def _parts(served: Served, model: Path, modules: Sequence[str]) -> list[float]:
    """Interpreter, imports, session and warm-up of one process."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(_PARTS), str(began), str(model), str(cores()), *modules],
        env=served.environment(),
        capture_output=True,
        text=True,
        timeout=_LIMIT,
        check=False,
    )
    if done.returncode:
        raise ServerError(f"the parts of a start cannot be measured: {done.stderr.strip()[-600:]}")
    parts: list[float] = json.loads(done.stdout)
    return parts
