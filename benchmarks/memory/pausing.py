"""Pauses of the garbage collector under load, as part of what the memory manager sets out to reach.

They are measured by the benchmark of the serving path; here is what is asked of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from benchmarks import targets
from benchmarks.graph.run import RESULTS, say
from benchmarks.serving import figures
from benchmarks.serving.models import MLP
from benchmarks.serving.pauses import MODES, Paused, compared
from benchmarks.serving.report import machine

_ALLOWED = 0.25


def verdict(runs: Sequence[Paused]) -> targets.Verdict:
    """Whether the pauses, all together, are at least 75 % shorter than the defaults'; medians of the rounds."""
    default, managed = (
        figures.spread([each.total for each in runs if each.mode == mode]).median if runs else None for mode in MODES
    )
    target = "GC pauses under load: total at least 75 % below Python's defaults"
    if default is None or managed is None or not default:
        return targets.Verdict(target, targets.NOT_MEASURED, None)
    ratio = managed / default
    text = f"{(ratio - 1) * 100:+.0f} % ({default * 1e3:.1f} ms to {managed * 1e3:.1f} ms)"
    return targets.Verdict(target, text, ratio <= _ALLOWED)


@click.command()
@click.option("--rounds", "-r", default=3, show_default=True, help="Servers of each kind, by turns.")
@click.option("--seconds", default=20.0, show_default=True, help="That each of them is under load.")
@click.option("--rate", default=1000.0, show_default=True, help="Requests a second: the same work for both.")
@click.option("--quick", is_flag=True, help="One round of 3 seconds: whether it works.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Folder for JSON.")
def pauses(rounds: int, seconds: float, *, rate: float, quick: bool, results: Path) -> None:
    """Pauses of the garbage collector under load: as it is served, against Python's defaults."""
    rounds, seconds = (1, 3.0) if quick else (rounds, seconds)
    runs = compared(MLP, rounds=rounds, seconds=seconds, rate=rate, say=say)
    results.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine(), "runs": [asdict(each) for each in runs]}
    (results / "memory-pauses.json").write_text(json.dumps(document, indent=1) + "\n")
    click.echo(targets.table([verdict(runs)]))
