"""The bare engine: onnxruntime in a loop, no server at all. Prints inferences a second as JSON.

It runs one inference after the other, and then as many at once as there are cores, and gives the better of the two:
that is the most that any server with these session options can reach.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.serving.peers import engine


def main() -> None:
    """Measures each concurrency for half of the time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--inputs", type=Path, required=True, help="Requests one after the other, as .npz: N/NAME.")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    told = parser.parse_args()
    session = engine.session(engine.Options(told.model, "", 0, told.threads, 1, 0))
    requests = _requests(told.inputs)
    session.run(None, requests[0])
    rates = {
        at_once: _rate(session, requests, at_once=at_once, seconds=told.seconds / 2)
        for at_once in sorted({1, os.cpu_count() or 1})
    }
    print(json.dumps({"rate": max(rates.values()), "at_once": max(rates, key=lambda each: rates[each])}))


def _requests(path: Path) -> list[dict[str, Any]]:
    requests: dict[str, dict[str, Any]] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            number, _, name = key.partition("/")
            requests.setdefault(number, {})[name] = arrays[key]
    return list(requests.values())


def _rate(session: Any, requests: list[dict[str, Any]], *, at_once: int, seconds: float) -> float:
    start = time.perf_counter()
    end = start + seconds

    def work(first: int) -> int:
        done = first
        while time.perf_counter() < end:
            session.run(None, requests[done % len(requests)])
            done += 1
        return done - first

    with ThreadPoolExecutor(at_once) as pool:
        total = sum(pool.map(work, range(at_once)))
    return total / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
