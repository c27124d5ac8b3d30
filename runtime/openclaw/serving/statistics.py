"""What one version of a model did since the server started: the numbers of the statistics extension.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple


class Spent(NamedTuple):
    """How often something was done, and the nanoseconds that it took in all."""

    times: int = 0
    ns: int = 0

    def and_more(self, seconds: float) -> Spent:
        """It was done once more."""
        return Spent(self.times + 1, self.ns + int(seconds * 1e9))


class Statistics:
    """Counts of one version of a model, written on the event loop alone.

    Attributes:
        last_inference_ms: when the last inference was answered, in milliseconds since 1970; 0: none was.
        inference_count: rows that were computed.
        execution_count: runs of the model.
        batches: runs by their rows.
    """

    def __init__(self) -> None:
        self.last_inference_ms = 0
        self.inference_count = 0
        self.execution_count = 0
        self.success = Spent()
        self.fail = Spent()
        self.queue = Spent()
        self.compute_input = Spent()
        self.compute_infer = Spent()
        self.compute_output = Spent()
        self.batches: dict[int, Spent] = {}

    def ran(self, rows: int, seconds: float) -> None:
        """One run over so many rows ended."""
        self.inference_count += rows
        self.execution_count += 1
        self.compute_infer = self.compute_infer.and_more(seconds)
        self.batches[rows] = self.batches.get(rows, Spent()).and_more(seconds)

    def answered(self, seconds: float, *, success: bool) -> None:
        """One request ended."""
        if success:
            self.success = self.success.and_more(seconds)
            self.last_inference_ms = int(time.time() * 1e3)
        else:
            self.fail = self.fail.and_more(seconds)


def document(name: str, version: str, statistics: Statistics) -> dict[str, Any]:
    """One entry of ``model_stats``."""
    return {
        "name": name,
        "version": version,
        "last_inference": statistics.last_inference_ms,
        "inference_count": statistics.inference_count,
        "execution_count": statistics.execution_count,
        "inference_stats": {
            "success": _spent(statistics.success),
            "fail": _spent(statistics.fail),
            "queue": _spent(statistics.queue),
            "compute_input": _spent(statistics.compute_input),
            "compute_infer": _spent(statistics.compute_infer),
            "compute_output": _spent(statistics.compute_output),
        },
        "batch_stats": [
            {"batch_size": rows, "compute_infer": _spent(spent)} for rows, spent in sorted(statistics.batches.items())
        ],
    }


def _spent(spent: Spent) -> dict[str, int]:
    return {"count": spent.times, "ns": spent.ns}
