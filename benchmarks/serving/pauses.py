"""Pauses of the garbage collector: the server as it is against the same one with the collector as Python has it."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving import figures, wire
from benchmarks.serving.models import ServedModel
from benchmarks.serving.openloop import OpenLoop
from benchmarks.serving.server import Server, running
from benchmarks.serving.session import samples_of
from benchmarks.serving.subjects import SUBJECTS, Served
from benchmarks.targets import Verdict
from prometheus_client.parser import text_string_to_metric_families

MODES = ("default", "managed")
"""Values of OPENCLAW_GC; the second is what the product does unasked."""
_ALLOWED = 0.25
_WATCH = Path(__file__).parent / "watch"
_PAIR = struct.Struct("dd")
_METRIC = "openclaw_gc_pause_seconds"


@dataclass(frozen=True, slots=True)
class Paused:
    """The pauses of one run under load, in seconds.

    Attributes:
        reported: their sum as the server's own metrics have it.
        latency: p99 of the requests.
    """

    mode: str
    count: int
    total: float
    p99: float
    longest: float
    reported: float
    latency: float
    answered: int


def measure(model: ServedModel, mode: str, *, seconds: float, rate: float) -> Paused:
    """Serves `model` with openclaw at a constant rate, so that both modes have the same work.

    Raises:
        ServerError: the server does not start.
    """
    request = wire.post(model.name, samples_of(model, 1)[0], binary=False)
    served = Served(SUBJECTS[0], model)
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as folder:
        file = Path(folder) / "pauses"
        paths = os.pathsep.join([str(_WATCH), served.environment()["PYTHONPATH"]])
        variables = {"OPENCLAW_GC": mode, "BENCH_GC_PAUSES": str(file), "PYTHONPATH": paths}
        with running(served, request, variables=variables) as server:
            # Only what happens under load counts, not what loading the model costs.
            before, reported = file.stat().st_size, _reported(server)
            done = OpenLoop(server.port, figures.evenly(rate, seconds), requests=[request.encoded()]).run()
            data, reported = file.read_bytes()[before:], _reported(server) - reported
    pauses = [length for _, length in _PAIR.iter_unpack(data)]
    return Paused(
        mode,
        count=len(pauses),
        total=sum(pauses),
        p99=figures.percentile(pauses, 0.99) if pauses else 0.0,
        longest=max(pauses, default=0.0),
        reported=reported,
        latency=figures.percentile(done.latencies, 0.99),
        answered=len(done.latencies),
    )


def compared(
    model: ServedModel, *, rounds: int, seconds: float, rate: float, say: Callable[[str], None]
) -> list[Paused]:
    """Both modes by turns."""
    runs = []
    for number in range(rounds):
        for mode in MODES:
            runs.append(measure(model, mode, seconds=seconds, rate=rate))
            last = runs[-1]
            say(
                f"round {number + 1} of {rounds}: {mode}: {last.count} pauses, {last.total * 1e3:.2f} ms in all, "
                f"p99 {last.p99 * 1e3:.3f} ms, longest {last.longest * 1e3:.3f} ms"
            )
    return runs


def verdicts(runs: Sequence[Paused]) -> list[Verdict]:
    """Whether p99 and total of the product's pauses are at most a quarter of the default's; medians of the rounds."""
    told = []
    for name in ("p99", "total"):
        default, managed = (median(runs, mode, name) for mode in MODES)
        measured = f"{managed * 1e3:.2f} ms of {default * 1e3:.2f} ms"
        told.append(
            Verdict(f"garbage collector, {name} of pauses: at most a quarter", measured, managed <= _ALLOWED * default)
        )
    return told


def median(runs: Sequence[Paused], mode: str, name: str) -> float:
    """Of a figure over a mode's rounds, seconds."""
    return figures.spread([float(getattr(each, name)) for each in runs if each.mode == mode]).median


def _reported(server: Server) -> float:
    """Seconds of all pauses so far, of every generation, from /metrics."""
    text = wire.get(server.port, "/metrics").decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"{_METRIC}_sum"
    )
