"""`python -m benchmarks.memory.run`: what models hold with onnxruntime's defaults and with ours; see --help."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
from benchmarks.graph.families import FAMILIES, Family
from benchmarks.graph.run import LeftOut, say
from benchmarks.memory import report
from benchmarks.memory.buffers import buffers
from benchmarks.memory.case import Effort, measured
from benchmarks.memory.forms import made
from benchmarks.memory.groups import parent_group
from benchmarks.memory.kept import BUFFERS, COMPARED, PAUSES, TIERS, earlier, folder_of
from benchmarks.memory.lifetimes import random_flow, random_lifetimes
from benchmarks.memory.pausing import pauses
from benchmarks.memory.records import Case, Planning, Results
from benchmarks.memory.settings import BATCHES, NETS, key
from benchmarks.memory.splitting import splitting
from benchmarks.memory.tiers import tiers
from benchmarks.records import Origin
from benchmarks.serving.report import machine
from benchmarks.summary import summary

from openclaw.devices.cpu import default_threads, read_grant
from openclaw.memory.graphs import plan_graph
from openclaw.memory.planner import plan
from openclaw.optimizer.options import TIME_LIMIT

PLANNING = "planner"
PARTS = (*NETS, PLANNING)
_PLANS = 7
_CHOOSING = 240.0  # seconds: what an optimization with a time limit of 270 has left for it
_TENSORS = 2_000

_HELP = """Measures what models need of memory, with onnxruntime's defaults and with what the optimizer chooses.

\b
Models   ResNet50, Inception-like, U-Net, BERT-base, MobileNetV3 with random weights, at batches of 1 and 16
Engines  onnxruntime's default; the same model in the memory chosen for it; in the precision that the accuracy guard
         allows, in the least memory
planner  fragmentation of 200 random sets of lifetimes, and the time of large plans
Begin with:
  python -m benchmarks.memory.run compare --quick                    a minute, to see that all works
  python -m benchmarks.memory.run compare                            the figures; about 25 minutes on 2 cores
  python -m benchmarks.memory.run compare --only unet --batch 16     a part; the others stay as they were
  python -m benchmarks.memory.run tiers                              models with less memory than they are large
  python -m benchmarks.memory.run pauses | buffers                   the collector under load; large bodies
  python -m benchmarks.memory.run splitting                          graphs in segments, beside whole ones
  python -m benchmarks.memory.run summary                            all targets, as measured last

Figures of a machine that does other things meanwhile are worth nothing: leave it alone.
"""


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """The group of all commands."""


main.add_command(buffers)
main.add_command(pauses)
main.add_command(splitting)
main.add_command(tiers)


@main.command()
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="This part alone; may be given several times.")
@click.option("--batch", "batches", multiple=True, type=int, help="These batches alone.  [default: 1 and 16]")
@click.option("--rounds", "-r", default=3, show_default=True, help="Processes of each engine, by turns.")
@click.option("--seconds", default=0.5, show_default=True, help="That each of them runs.")
@click.option("--memory", "asked", default="auto", type=click.Choice(["auto", "least"]), help="As of optimize.")
@click.option("--optimizing", default=TIME_LIMIT, show_default=True, help="Seconds for each lower precision.")
@click.option("--choosing", default=_CHOOSING, show_default=True, help="Seconds for how an engine holds activations.")
@click.option("--quick", is_flag=True, help="Small models and few rounds: whether all works.")
@click.option("--group", "parent", type=click.Path(path_type=Path, exists=True), help="Where to make control groups.")
@click.option("--results", type=click.Path(path_type=Path), help="Folder for JSON, table, picture.")
def compare(
    only: tuple[str, ...],
    batches: tuple[int, ...],
    *,
    rounds: int,
    seconds: float,
    asked: str,
    optimizing: float,
    choosing: float,
    quick: bool,
    parent: Path | None,
    results: Path | None,
) -> None:
    """What is held, processes and latency; a table, JSON and a picture."""
    folder = folder_of(results, quick=quick)
    before = earlier(Results, folder, name=COMPARED, part=bool(only or batches))
    parent = parent or parent_group()
    if parent is None:
        say("control groups cannot be made here: the peak of a process is what was resident")
    run = Run(
        parts=only or PARTS,
        batches=batches or BATCHES,
        effort=Effort(
            rounds=2 if quick else rounds,
            seconds=0.1 if quick else seconds,
            small=quick,
            asked=asked,
            choosing=5.0 if quick else choosing,
            parent=parent,
        ),
        optimizing=10.0 if quick else optimizing,
        # After each case: whatever ends the run, what was measured until then stays.
        keep=lambda found: report.written(found.joined(before) if before else found, folder),
    )
    run.measure()
    click.echo(run.keep(run.results()))


@main.command("summary")
@click.option("--quick", is_flag=True, help="Of the quick runs.")
@click.option("--results", type=click.Path(path_type=Path), help="Folder with the JSON of the others.")
def summed_up(quick: bool, results: Path | None) -> None:
    """Every target of the memory manager beside what was measured last, from what the other commands kept."""
    folder = folder_of(results, quick=quick)
    text = summary(folder / f"{name}.json" for name in (COMPARED, TIERS, PAUSES, BUFFERS))
    (folder / "memory-summary.md").write_text(text)
    click.echo(text)


@dataclass(slots=True)
class Run:
    """One run of some parts."""

    parts: Sequence[str]
    batches: Sequence[int]
    effort: Effort
    optimizing: float
    keep: Callable[[Results], str]
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
            small=self.effort.small,
            cases=self.cases,
            planning=self.planning,
            left_out=tuple(self.left_out),
        )

    def measure(self) -> None:
        """All parts, one after the other; one that fails is told and left out."""
        if PLANNING in self.parts:
            with LeftOut(PLANNING, self.left_out):
                self.planning = self._planner()
        families = {family.name: family for family in FAMILIES}
        for name in NETS:
            if name in self.parts:
                with LeftOut(name, self.left_out):
                    self._family(families[name])

    def _family(self, family: Family) -> None:
        with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as folder:
            small = self.effort.small
            forms = made(family, Path(folder), threads=self.threads, small=small, time_limit=self.optimizing, say=say)
            for batch in self.batches:
                with LeftOut(f"{family.name}, batch {batch}", self.left_out):
                    self.cases[key(family.name, batch)] = measured(
                        family, forms, batch, effort=self.effort, origin=self.origin, say=say
                    )
                    self.keep(self.results())
                    say(f"{len(self.cases)} of {len(self.batches) * len(set(self.parts) & NETS.keys())} cases done")

    def _planner(self) -> Planning:
        say("planner: random lifetimes, and a graph")
        sets = [random_lifetimes(seed, 20 + seed) for seed in range(20 if self.effort.small else 200)]
        large, flow = random_lifetimes(0, _TENSORS), random_flow(0, _TENSORS)
        return Planning(
            origin=self.origin,
            fragmentation=tuple(plan(each).fragmentation for each in sets),
            tensors=_TENSORS,
            seconds=_times(lambda: plan(large)),
            graph_seconds=_times(lambda: plan_graph(flow)),
        )


def _times(work: Callable[[], object]) -> tuple[float, ...]:
    seconds = []
    for _ in range(_PLANS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return tuple(seconds)


if __name__ == "__main__":
    main()
