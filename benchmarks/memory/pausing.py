"""Pauses of the garbage collector under load, as part of what the memory manager sets out to reach.

They are measured by the benchmark of the serving path; here is what is asked of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click
from benchmarks import markdown, targets
from benchmarks.graph.run import say
from benchmarks.memory.kept import PAUSES, folder_of
from benchmarks.records import Record
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


class PauseResults(Record):
    """All of it.

    Attributes:
        small: it was a short run: nothing follows for the target.
        verdicts: of what is here, for who reads it without this benchmark.
    """

    machine: Mapping[str, str | float]
    small: bool
    runs: tuple[Paused, ...]
    verdicts: tuple[targets.Verdict, ...] = ()


def table(results: PauseResults) -> str:
    """All of it as Markdown."""
    facts = results.machine
    rows = [
        [each.mode, str(each.count), *(f"{seconds * 1e3:.2f}" for seconds in (each.total, each.p99, each.longest)),
         f"{each.latency * 1e3:.2f}", str(each.answered)]
        for each in results.runs
    ]  # fmt: skip
    return "\n".join(
        [
            "# Pauses of the garbage collector\n",
            f"{facts['cpu']}, {facts['cores']} cores; commit {facts['commit']}; {facts['date']}. Servers by turns, "
            "each with the same requests a second; times in ms.\n",
            *(["The run was a short one: nothing follows for the target.\n"] if results.small else []),
            targets.table(results.verdicts),
            markdown.table(["Collector", "Pauses", "Total", "p99", "Longest", "Requests' p99", "Answered"], rows),
        ]
    )


@click.command()
@click.option("--rounds", "-r", default=3, show_default=True, help="Servers of each kind, by turns.")
@click.option("--seconds", default=20.0, show_default=True, help="That each of them is under load.")
@click.option("--rate", default=1000.0, show_default=True, help="Requests a second: the same work for both.")
@click.option("--quick", is_flag=True, help="One round of 3 seconds: whether it works.")
@click.option("--results", type=click.Path(path_type=Path), help="Folder for JSON and table.")
def pauses(rounds: int, seconds: float, *, rate: float, quick: bool, results: Path | None) -> None:
    """Pauses of the garbage collector under load: as it is served, against Python's defaults."""
    rounds, seconds = (1, 3.0) if quick else (rounds, seconds)
    facts = machine()
    runs = tuple(compared(MLP, rounds=rounds, seconds=seconds, rate=rate, say=say))
    told = verdict(runs)
    told = replace(told, holds=None) if quick else told
    found = PauseResults(machine=facts, small=quick, runs=runs, verdicts=(told,))
    to = folder_of(results, quick=quick)
    (to / f"{PAUSES}.json").write_text(found.model_dump_json(indent=1) + "\n")
    (to / f"{PAUSES}.md").write_text(table(found))
    click.echo(table(found))
