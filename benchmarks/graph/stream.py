"""Frames of a camera through ResNet50, in a process of its own: `python -m benchmarks.graph.stream MODEL WAY ...`.

`plain` is what a first try does: nothing optimized, frames are normalized, then run. `pipeline` normalizes the next
ones while the model runs, as it is served: on the engine and in the memory that its file names.
Prints JSON: frames a second, and the most memory the process ever had.
Imports nothing that a server would not need, as that counts as memory.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

from openclaw.execute import engines
from openclaw.execute.running import runner
from openclaw.graph.properties import read_properties
from openclaw.graph.signature import read_signature
from openclaw.memory.arena import arena_of
from openclaw.memory.properties import memory_of

Floats = npt.NDArray[np.float32]

_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * np.float32(255)
_SCALE = np.float32(1 / 255) / np.array([0.229, 0.224, 0.225], np.float32)
_FRAMES = 32


def main() -> None:
    """Runs for so many seconds after one second that does not count."""
    parser = argparse.ArgumentParser(description="Frames through a model.")
    parser.add_argument("model", type=Path)
    parser.add_argument("way", choices=["plain", "pipeline"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    session = opened(arguments.model, plain=arguments.way == "plain", threads=arguments.threads)
    batch = arguments.batch
    side = session.get_inputs()[0].shape[-1]
    frames = np.random.default_rng(0).integers(0, 256, (_FRAMES, side, side, 3), np.uint8)
    made = plain if arguments.way == "plain" else pipeline
    step = made(session, frames, batch)
    rate = measured(step, batch, arguments.seconds)
    print(json.dumps({"frames_per_second": rate, "peak_bytes": peak()}))


class Session(Protocol):
    """What frames go through; of onnxruntime's own session, what is used here."""

    def get_inputs(self) -> Sequence[Any]:
        """Names and shapes."""

    def run(self, names: None, feed: Mapping[str, Floats]) -> object:
        """All outputs."""


class Served:
    """A model as it is served."""

    def __init__(self, model: Path, threads: int) -> None:
        """``threads``: of one inference."""
        properties = read_properties(model)
        memory = memory_of(properties, source=model.name)
        options = unoptimized(threads)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        with arena_of(options, memory.arena):
            self._session = engines.open_session(
                model, options, engines.engine_of(properties), threads=threads, said=properties
            )
        signature = read_signature(self._session.get_inputs(), self._session.get_outputs())
        self._names = [output.name for output in signature.outputs]
        self._run = runner(self._session, signature, memory)

    def get_inputs(self) -> Sequence[Any]:
        """Names and shapes."""
        inputs: Sequence[Any] = self._session.get_inputs()
        return inputs

    def run(self, names: None, feed: Mapping[str, Floats]) -> object:
        """All outputs."""
        return self._run(self._names, feed)


def opened(model: Path, *, plain: bool, threads: int) -> Session:
    """A model to run frames through; a plain one without any optimization."""
    onnxruntime.disable_telemetry_events()
    if not plain:
        return Served(model, threads)
    session: Session = onnxruntime.InferenceSession(
        str(model), unoptimized(threads), providers=["CPUExecutionProvider"]
    )
    return session


def unoptimized(threads: int) -> Any:
    """Options without any optimization."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def normalized(frames: npt.NDArray[np.uint8], into: Floats) -> None:
    """Bytes [N, H, W, 3] to what the network takes, [N, 3, H, W], one after the other: no second copy of all."""
    for number, frame in enumerate(frames):
        np.multiply(frame.transpose(2, 0, 1) - _MEAN[:, None, None], _SCALE[:, None, None], out=into[number])


def plain(session: Session, frames: npt.NDArray[np.uint8], batch: int) -> Callable[[], None]:
    """One thing after the other."""
    name = session.get_inputs()[0].name
    into = np.empty((batch, 3, *frames.shape[1:3]), np.float32)
    at = 0

    def step() -> None:
        nonlocal at
        normalized(frames[(at + np.arange(batch)) % len(frames)], into)
        session.run(None, {name: into})
        at += batch

    return step


def pipeline(session: Session, frames: npt.NDArray[np.uint8], batch: int) -> Callable[[], None]:
    """A batch runs while the next one is made."""
    name = session.get_inputs()[0].name
    shape = (batch, 3, *frames.shape[1:3])
    slots = [np.empty(shape, np.float32) for _ in range(2)]
    beside, at = ThreadPoolExecutor(1), 0

    def made(slot: int, first: int) -> None:
        normalized(frames[(first + np.arange(batch)) % len(frames)], slots[slot])

    pending = beside.submit(made, 0, 0)

    def step() -> None:
        nonlocal at, pending
        pending.result()
        slot, at = at // batch % 2, at + batch
        pending = beside.submit(made, 1 - slot, at)
        session.run(None, {name: slots[slot]})

    return step


def measured(step: Callable[[], None], frames: int, seconds: float) -> float:
    """Frames a second; each step runs so many."""
    began = time.perf_counter()
    while time.perf_counter() - began < min(1.0, seconds):
        step()
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds or not count:
        step()
        count += frames
    return count / passed


def peak() -> int:
    """Bytes; of this program alone, while getrusage would count what the parent had when it started it."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


if __name__ == "__main__":
    main()
