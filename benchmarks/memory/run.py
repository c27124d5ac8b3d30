"""`python -m benchmarks.memory.run`: what models hold with onnxruntime's defaults and with ours; see --help."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
from benchmarks.graph.families import FAMILIES
from benchmarks.graph.run import RESULTS, LeftOut, say
from benchmarks.memory import report
from benchmarks.memory.buffers import buffers
from benchmarks.memory.case import Effort, measured
from benchmarks.memory.forms import made
from benchmarks.memory.lifetimes import random_lifetimes
from benchmarks.memory.pausing import pauses
from benchmarks.memory.records import Case, Planning, Results
from benchmarks.memory.tiers import tiers
from benchmarks.records import Origin
from benchmarks.serving.report import machine

from openclaw.devices.cpu import default_threads, read_grant
from openclaw.memory.planner import plan

NAMES = ("resnet50", "inception", "unet", "bert", "mobilenet")
PLANNING = "planner"
PARTS = (*NAMES, PLANNING)
_BATCHES = (1, 16)
_OPTIMIZING = 60.0  # seconds, of each model

_HELP = """Measures what models need of memory, with onnxruntime's defaults and with what the optimizer chooses.

\b
Models   ResNet50, Inception-like, U-Net, BERT-base, MobileNetV3 with random weights, at batches of 1 and 16
Engines  onnxruntime's default; the same model in the memory chosen for it; its form of lower precision in its own
planner  fragmentation of 200 random sets of lifetimes, and the time of a large plan
Begin with:
  python -m benchmarks.memory.run compare --quick                    a minute, to see that all works
  python -m benchmarks.memory.run compare                            the figures; about 40 minutes on 2 cores
  python -m benchmarks.memory.run compare --only unet --batch 16     a part; the others stay as they were
  python -m benchmarks.memory.run tiers                              models with less memory than they are large
  python -m benchmarks.memory.run pauses | buffers                   the collector under load; large bodies

Figures of a machine that does other things meanwhile are worth nothing: leave it alone.
"""


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """The group of all commands."""


main.add_command(buffers)
main.add_command(pauses)
main.add_command(tiers)


@main.command()
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="This part alone; may be given several times.")
@click.option("--batch", "batches", multiple=True, type=int, help="These batches alone.  [default: 1 and 16]")
@click.option("--rounds", "-r", default=3, show_default=True, help="Processes of each engine, by turns.")
@click.option("--seconds", default=1.5, show_default=True, help="That each of them runs.")
@click.option("--memory", "asked", default="auto", type=click.Choice(["auto", "least"]), help="As of optimize.")
@click.option("--optimizing", default=_OPTIMIZING, show_default=True, help="Seconds for each lower precision.")
@click.option("--quick", is_flag=True, help="Small models and few rounds: whether all works.")
@click.option("--group", "parent", type=click.Path(path_type=Path, exists=True), help="Where to make control groups.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Folder for JSON, table, picture.")
def compare(
    only: tuple[str, ...],
    batches: tuple[int, ...],
    *,
    rounds: int,
    seconds: float,
    asked: str,
    optimizing: float,
    quick: bool,
    parent: Path | None,
    results: Path,
) -> None:
    """What is held, processes and latency; a table, JSON and a picture."""
    run = Run(
        parts=only or PARTS,
        batches=batches or _BATCHES,
        effort=Effort(
            rounds=2 if quick else rounds, seconds=0.1 if quick else seconds, small=quick, asked=asked, parent=parent
        ),
        optimizing=10.0 if quick else optimizing,
    )
    try:
        run.measure()
    finally:
        # Also where it was interrupted: what was measured stays.
        found = run.results()
        earlier = None if quick else Results.read(results / "memory.json")
        click.echo(report.written(found.joined(earlier) if earlier else found, results))


@dataclass(slots=True)
class Run:
    """One run of some parts."""

    parts: Sequence[str]
    batches: Sequence[int]
    effort: Effort
    optimizing: float
    threads: int = field(default_factory=lambda: default_threads(read_grant().cores))
    facts: Mapping[str, str | float] = field(default_factory=machine)
    cases: dict[str, Case] = field(default_factory=dict)
    planning: Planning | None = None
    left_out: list[str] = field(default_factory=list)

    @property
    def origin(self) -> Origin:
        """Of all that this run measures."""
        return Origin(commit=str(self.facts["commit"]), date=str(self.facts["date"]))

    def results(self) -> Results:
        """What was measured until now."""
        return Results(
            machine=self.facts,
            threads=self.threads,
            cases=self.cases,
            planning=self.planning,
            left_out=tuple(self.left_out),
        )

    def measure(self) -> None:
        """All parts, one after the other; one that fails is told and left out."""
        for family in FAMILIES:
            if family.name not in self.parts or family.name not in NAMES:
                continue
            with LeftOut(family.name, self.left_out), tempfile.TemporaryDirectory(prefix="openclaw-bench-") as folder:
                small = self.effort.small
                forms = made(
                    family, Path(folder), threads=self.threads, small=small, time_limit=self.optimizing, say=say
                )
                for batch in self.batches:
                    self.cases[f"{family.name}-{batch}"] = measured(
                        family, forms, batch, effort=self.effort, origin=self.origin, say=say
                    )
        if PLANNING in self.parts:
            with LeftOut(PLANNING, self.left_out):
                self.planning = self._planner()

    def _planner(self) -> Planning:
        say("planner: random lifetimes")
        sets = [random_lifetimes(seed, 20 + seed) for seed in range(20 if self.effort.small else 200)]
        large = random_lifetimes(0, 2_000)
        seconds = []
        for _ in range(7):
            began = time.perf_counter()
            plan(large)
            seconds.append(time.perf_counter() - began)
        return Planning(
            origin=self.origin,
            fragmentation=tuple(plan(each).fragmentation for each in sets),
            tensors=len(large),
            seconds=tuple(seconds),
        )


if __name__ == "__main__":
    main()
