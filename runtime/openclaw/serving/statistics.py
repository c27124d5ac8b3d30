"""What one version of a model did since the server started: the numbers of the statistics extension.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from openclaw.memory.tiers import Tier


class Spent(NamedTuple):
    """How often something was done, and the nanoseconds that it took in all."""

    times: int
    ns: int


class Tally:
    """Counts something that is done."""

    __slots__ = ("seconds", "times")

    def __init__(self) -> None:
        self.times = 0
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """It was done once more."""
        self.times += 1
        self.seconds += seconds

    @property
    def spent(self) -> Spent:
        """So far."""
        return Spent(self.times, int(self.seconds * 1e9))


class Statistics:
    """Counts of one version of a model, written on the event loop alone."""

    def __init__(self) -> None:
        self._last = 0.0
        self._success = Tally()
        self._fail = Tally()
        self._queue = Tally()
        self._runs: dict[int, Tally] = {}

    def ran(self, rows: int, seconds: float) -> None:
        """One run over so many rows ended."""
        tally = self._runs.get(rows)
        if tally is None:
            tally = self._runs[rows] = Tally()
        tally.times += 1
        tally.seconds += seconds

    def queued(self, seconds: float) -> None:
        """One request waited so long."""
        self._queue.add(seconds)

    def answered(self, seconds: float) -> None:
        """One request was answered."""
        self._success.add(seconds)
        self._last = time.time()

    def failed(self, seconds: float) -> None:
        """One request was refused, or failed."""
        self._fail.add(seconds)

    @property
    def last_inference_ms(self) -> int:
        """When the last inference was answered, in milliseconds since 1970; 0: none was."""
        return int(self._last * 1e3)

    @property
    def inference_count(self) -> int:
        """Rows that were computed."""
        return sum(rows * tally.times for rows, tally in self._runs.items())

    @property
    def execution_count(self) -> int:
        """Runs of the model."""
        return sum(tally.times for tally in self._runs.values())

    @property
    def success(self) -> Spent:
        """Requests answered."""
        return self._success.spent

    @property
    def fail(self) -> Spent:
        """Requests refused or failed."""
        return self._fail.spent

    @property
    def queue(self) -> Spent:
        """Waiting of requests."""
        return self._queue.spent

    @property
    def compute_input(self) -> Spent:
        """Putting batches together: a part of the runs, not told apart."""
        return Spent(self.execution_count, 0)

    @property
    def compute_infer(self) -> Spent:
        """Runs of the model."""
        return Spent(self.execution_count, int(sum(tally.seconds for tally in self._runs.values()) * 1e9))

    @property
    def compute_output(self) -> Spent:
        """Taking results apart: a part of the runs, not told apart."""
        return Spent(self.execution_count, 0)

    @property
    def batches(self) -> dict[int, Spent]:
        """Runs of the model by their rows."""
        return {rows: tally.spent for rows, tally in sorted(self._runs.items())}


def document(name: str, version: str, statistics: Statistics, *, tier: Tier) -> dict[str, Any]:
    """One entry of ``model_stats``; ``tier``, where the weights are, is none of the extension's."""
    return {
        "name": name,
        "version": version,
        "tier": tier,
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
