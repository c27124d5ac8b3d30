"""What every small server here is told, and the session that all of them have: openclaw's own options."""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime


@dataclass(frozen=True, slots=True)
class Options:
    """The command line of a server.

    Attributes:
        threads: for one inference.
        batch: rows that the server may put into one inference; 1: its batching is off.
        spare: first of some free ports, for what a server opens besides.
    """

    model: Path
    name: str
    port: int
    threads: int
    batch: int
    spare: int

    @property
    def small(self) -> bool:
        """Whether an inference is over before another thread could have begun it."""
        return self.model.stat().st_size < 2**20


def parsed() -> Options:
    """The options of this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--name", required=True)
    for number in ("--port", "--threads", "--batch", "--spare"):
        parser.add_argument(number, type=int, default=1)
    return Options(**vars(parser.parse_args()))


def pool() -> ThreadPoolExecutor | None:
    """Threads for inferences that would hold the event loop up, one for each core; None where a hop takes longer."""
    return None if parsed().small else ThreadPoolExecutor(os.cpu_count())


def session(options: Options) -> Any:
    """One onnxruntime session; spinning is off, as it takes the core that the HTTP side needs."""
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = options.threads
    chosen.inter_op_num_threads = 1
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chosen.log_severity_level = 3
    return onnxruntime.InferenceSession(str(options.model), chosen, providers=["CPUExecutionProvider"])
