"""Runs a form of a model in a process of its own first: an engine that ends its process must not end ours.

python -m openclaw.optimizer.measuring.rehearsal MODEL THREADS FEEDS...

Engines beside onnxruntime's own kernels come as plugins, and what they cannot do ends in ``abort()`` at times (seen:
OpenVINO's, with strings as inputs).
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx

from openclaw.errors import InferenceFailed, ModelInvalid, NotApplicable
from openclaw.optimizer.measuring.engine import open_engine
from openclaw.optimizer.recipe import Feed

_SECONDS = 120.0


def rehearse(model: onnx.ModelProto, feeds: Sequence[Feed], *, threads: int, folder: Path) -> None:
    """Runs the feeds once; errors that a process survives are left to whoever runs them next.

    Args:
        model: that names its engine.
        feeds: to run.
        threads: of the engine.
        folder: for files that the process reads.

    Raises:
        NotApplicable: it ended its process, or was not through in time.
    """
    if any(array.dtype.hasobject for feed in feeds for array in feed.values()):
        raise NotApplicable("its inputs are strings, which other engines do not take")
    path = folder / "rehearsed.onnx"
    path.write_bytes(model.SerializeToString())
    files = [folder / f"rehearsed-{number}.npz" for number, _ in enumerate(feeds)]
    for file, feed in zip(files, feeds, strict=True):
        np.savez(file, allow_pickle=False, **feed)
    module = "openclaw.optimizer.measuring.rehearsal"
    command = [sys.executable, "-m", module, str(path), str(threads), *map(str, files)]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotApplicable(f"its engine was not through after {_SECONDS:.0f} s") from error
    finally:
        for file in (path, *files):
            file.unlink()
    if ended.returncode:
        raise NotApplicable(f"its engine ended the process that ran it: {_how(ended.returncode)}")


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def main() -> None:
    """The process."""
    path, threads, *files = sys.argv[1:]
    with suppress(ModelInvalid, InferenceFailed):
        engine = open_engine(Path(path), int(threads))
        for file in files:
            with np.load(file, allow_pickle=False) as arrays:
                engine.run(dict(arrays))


if __name__ == "__main__":
    main()
