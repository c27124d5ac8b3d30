"""One model in a process of its own: `python -m benchmarks.memory.engine MODEL FEED`, in the memory that MODEL names.

Prints JSON: without `--profile` seconds of a run and what the process took, with it what was held of activations.
Imports nothing that a server would not need, as that counts as memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from benchmarks.graph.stream import peak

from openclaw.execute.running import runner
from openclaw.execute.session import session_options
from openclaw.graph.properties import read_properties
from openclaw.graph.rows import rows_of
from openclaw.graph.signature import read_signature
from openclaw.memory.arena import arena_of
from openclaw.memory.profile import arena_use
from openclaw.memory.properties import Memory, memory_of
from openclaw.memory.trimming import trim

_PROFILED_RUNS = 3
_WARM_RUNS = 2


def main() -> None:
    """Runs for so many seconds after some runs that do not count."""
    parser = argparse.ArgumentParser(description="A model in its memory.")
    parser.add_argument("model", type=Path)
    parser.add_argument("feed", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--plain", action="store_true", help="as onnxruntime comes, and nothing of ours")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    feed = dict(np.load(arguments.feed))
    memory = memory_of(read_properties(arguments.model), source=arguments.model.name)
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as folder:
        prefix = Path(folder) / "profile" if arguments.profile else None
        session = opened(arguments.model, memory, threads=arguments.threads, profile=prefix)
        if not arguments.plain:
            trim()
        run = runner(session, read_signature(session.get_inputs(), session.get_outputs()), memory)
        if prefix is None:
            told = timed(run, feed, seconds=arguments.seconds)
            told |= {"pss": pss(), "peak": peak(), "anonymous": peak() - of_files()}
        else:
            told = profiled(session, run, feed, rows=memory.rows)
    print(json.dumps(told))


def opened(model: Path, memory: Memory, *, threads: int, profile: Path | None = None) -> Any:
    """A session as a server opens it."""
    options = session_options(threads, profile=profile)
    with arena_of(options, memory.arena):
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def timed(run: Callable[..., Any], feed: dict[str, Any], *, seconds: float) -> dict[str, Any]:
    """The median of a run's seconds, and how many runs there were."""
    for _ in range(_WARM_RUNS):
        run(None, feed)
    took: list[float] = []
    end = time.perf_counter() + seconds
    while not took or time.perf_counter() < end:
        began = time.perf_counter()
        run(None, feed)
        took.append(time.perf_counter() - began)
    return {"seconds": statistics.median(took), "runs": len(took)}


def profiled(session: Any, run: Callable[..., Any], feed: dict[str, Any], *, rows: int | None) -> dict[str, Any]:
    """What was held over some runs; runs with few rows at a time are as many more of the profile's.

    A batch that is run at once leaves its outputs in the arena, from where they are copied for the caller. Of one that
    is run `rows` at a time only a part's are there, and the whole is put together outside of it: `outside`, in bytes.
    """
    answer: list[Any] = []
    for _ in range(_PROFILED_RUNS):
        answer = run(None, feed)
    divided = rows is not None and rows < (rows_of(feed) or 0)
    told = asdict(arena_use(json.loads(Path(session.end_profiling()).read_text())))
    return told | {"outside": sum(each.nbytes for each in answer) if divided else 0}


def pss() -> int:
    """Bytes of this process in RAM, pages that several processes share divided among them: proc_pid_smaps(5)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pss:"))) * 1024


def of_files() -> int:
    """Bytes of files' pages, and of memory that processes share, that are resident now: proc_pid_status(5)."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return sum(int(words[1]) for words in lines if words[:1] in (["RssFile:"], ["RssShmem:"])) * 1024


if __name__ == "__main__":
    main()
