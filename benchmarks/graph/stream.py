"""Frames of a camera through ResNet50, in a process of its own: `python -m benchmarks.graph.stream MODEL WAY ...`.

`plain` is what a first try does: nothing optimized, frames are normalized, then run. `pipeline` normalizes the next
ones while onnxruntime runs. Prints JSON: frames a second, and the most memory the process ever had.
Imports nothing that a server would not need, as that counts as memory.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

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


def opened(model: Path, *, plain: bool, threads: int) -> Any:
    """A session; a plain one without any optimization, the other with arenas that grow by what is asked for."""
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    else:
        arena = onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1})
        memory = onnxruntime.OrtMemoryInfo(
            "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
        )
        onnxruntime.create_and_register_allocator(memory, arena)
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def normalized(frames: npt.NDArray[np.uint8], into: Floats) -> None:
    """Bytes [N, H, W, 3] to what the network takes, [N, 3, H, W], one after the other: no second copy of all."""
    for number, frame in enumerate(frames):
        np.multiply(frame.transpose(2, 0, 1) - _MEAN[:, None, None], _SCALE[:, None, None], out=into[number])


def plain(session: Any, frames: npt.NDArray[np.uint8], batch: int) -> Callable[[], None]:
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


def pipeline(session: Any, frames: npt.NDArray[np.uint8], batch: int) -> Callable[[], None]:
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
