"""Closed loop: each connection sends its next request when the last one is answered. The load is wrk's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.wire import Post

_SCRIPT = Path(__file__).parent / "wrk.lua"
_PATIENCE = 30  # seconds that wrk waits for an answer


class LoadError(Exception):
    """No load can be made; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What came of it. Latencies in seconds, of answered requests."""

    rate: float
    p50: float
    p99: float
    refused: int
    failed: int


def require_wrk() -> str:
    """Where wrk is.

    Raises:
        LoadError: it is not installed.
    """
    found = shutil.which("wrk")
    if found is None:
        raise LoadError("wrk is not there, and it makes the load of the closed loop; install it (Debian: package wrk)")
    return found


def closed_loop(port: int, request: Post, *, connections: int, seconds: float, lead: float = 0.0) -> Closed:
    """Keeps `connections` busy with `request` for some whole seconds, one of wrk's threads for all of them.

    Args:
        port: of the server.
        request: the same again and again.
        connections: that many at once.
        seconds: that are counted.
        lead: seconds before these: until as much is under way as at the end, which is not counted either.

    Raises:
        LoadError: wrk is not installed, or ended with an error.
    """
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as name:
        folder = Path(name)
        (folder / "body").write_bytes(request.body)
        (folder / "headers").write_text("".join(f"{key}: {value}\n" for key, value in request.headers.items()))
        variables = {
            "BENCH_PATH": request.path,
            "BENCH_BODY": str(folder / "body"),
            "BENCH_HEADERS": str(folder / "headers"),
            "BENCH_LEAD": str(lead),
        }
        whole = max(1, round(seconds + lead))
        loads = ["-t1", f"-c{connections}", f"-d{whole}s", f"--timeout={_PATIENCE}s"]
        done = subprocess.run(
            [require_wrk(), *loads, f"--script={_SCRIPT}", f"http://127.0.0.1:{port}"],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=whole + 2 * _PATIENCE,
            check=False,
        )
    return parsed(done.stdout, done.stderr)


def parsed(output: str, complaints: str = "") -> Closed:
    """Reads the last line that the script wrote.

    Raises:
        LoadError: there is none.
    """
    last = output.rstrip().rpartition("\n")[2]
    if not last.startswith("{"):
        raise LoadError(f"wrk failed: {(complaints or output).strip()[-300:]}")
    told = json.loads(last)
    answered = told["requests"] - told["refused"]
    return Closed(
        rate=answered / (told["microseconds"] / 1e6),
        p50=told["p50"] / 1e6,
        p99=told["p99"] / 1e6,
        refused=told["refused"],
        failed=told["failed"],
    )
