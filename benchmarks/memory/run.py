"""`python -m benchmarks.memory.run`: onnxruntime's arena with its defaults and with our settings; see --help."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from benchmarks.graph.families import FAMILIES, Family
from benchmarks.graph.run import RESULTS, ROOT, LeftOut, say
from benchmarks.memory import report
from benchmarks.memory.groups import group
from benchmarks.memory.lifetimes import random_lifetimes
from benchmarks.memory.records import Case, Held, Measured, Planned, Planning, Results
from benchmarks.memory.settings import CHOSEN, written
from benchmarks.memory.turns import by_turns
from benchmarks.records import Origin
from benchmarks.serving.report import machine

from openclaw.devices.cpu import default_threads, read_grant
from openclaw.errors import OpenClawError
from openclaw.inspection.memory import plan_of
from openclaw.memory.choice import DEFAULT, candidates, choice
from openclaw.memory.planner import plan
from openclaw.memory.profile import ArenaUse
from openclaw.optimizer.measuring.timing import Plan

NAMES = ("resnet50", "inception", "unet", "bert", "mobilenet")
PLANNING = "planner"
PARTS = (*NAMES, PLANNING)
_BATCHES = (1, 16)
_TURNS = 21
_LIMIT = 300  # seconds that a process may take

_HELP = """Measures what onnxruntime's arena holds of activations, with its defaults and with our settings.

\b
Models   ResNet50, Inception-like, U-Net, BERT-base, MobileNetV3 with random weights, at batches of 1 and 16
planner  fragmentation of 200 random sets of lifetimes, and the time of a large plan
Begin with:
  python -m benchmarks.memory.run compare --quick               a minute, to see that all works
  python -m benchmarks.memory.run compare                       the figures; about 15 minutes on 2 cores
  python -m benchmarks.memory.run compare --only unet --all     a part, with the arenas that were not chosen

Figures of a machine that does other things meanwhile are worth nothing: leave it alone.
"""


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """The group of all commands."""


@main.command()
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="This part alone; may be given several times.")
@click.option("--batch", "batches", multiple=True, type=int, help="These batches alone.  [default: 1 and 16]")
@click.option("--rounds", "-r", default=3, show_default=True, help="Processes of each engine, by turns.")
@click.option("--seconds", default=1.5, show_default=True, help="That each of them runs.")
@click.option("--all", "everything", is_flag=True, help="Also time the arenas that were not chosen.")
@click.option("--quick", is_flag=True, help="Small models and few rounds: whether all works.")
@click.option("--group", "parent", type=click.Path(path_type=Path, exists=True), help="Where to make control groups.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Folder for JSON, table, picture.")
def compare(
    only: tuple[str, ...],
    batches: tuple[int, ...],
    *,
    rounds: int,
    seconds: float,
    everything: bool,
    quick: bool,
    parent: Path | None,
    results: Path,
) -> None:
    """Arenas, processes and latency; a table, JSON and a picture."""
    run = Run(
        parts=only or PARTS,
        batches=batches or _BATCHES,
        rounds=2 if quick else rounds,
        seconds=0.1 if quick else seconds,
        everything=everything,
        small=quick,
        parent=parent,
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
    rounds: int
    seconds: float
    everything: bool
    small: bool
    parent: Path | None
    threads: int = field(default_factory=lambda: default_threads(read_grant().cores))
    facts: Mapping[str, str | float] = field(default_factory=machine)
    cases: dict[str, Case] = field(default_factory=dict)
    planning: Planning | None = None
    left_out: list[str] = field(default_factory=list)

    @property
    def origin(self) -> Origin:
        """Of all that this run measures."""
        return Origin(commit=str(self.facts["commit"]), date=str(self.facts["date"]))

    @property
    def plan(self) -> Plan:
        """For the clock, where arenas are timed by turns."""
        rounds = 2 if self.small else _TURNS
        return Plan(rounds=rounds, least=min(5, rounds), slice_seconds=0.15, seconds=0.5 if self.small else 12.0)

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
                say(f"{family.name}: building")
                model = family.build(small=self.small)
                path = Path(folder) / "model.onnx"
                onnx.save(model, path)
                for batch in self.batches:
                    self.cases[f"{family.name}-{batch}"] = self._case(family, model, batch=batch, path=path)
        if PLANNING in self.parts:
            with LeftOut(PLANNING, self.left_out):
                self.planning = self._planner()

    def _case(self, family: Family, model: onnx.ModelProto, *, batch: int, path: Path) -> Case:
        feed = family.feeds(batch, small=self.small)[0]
        file = path.with_name(f"feed-{batch}.npz")
        np.savez(file, allow_pickle=False, **feed)
        planned = plan_of(model, name=family.name, shapes={name: array.shape for name, array in feed.items()}).plan
        arenas = candidates(planned.arena_bytes)
        common = [str(path), str(file), "--threads", str(self.threads)]
        calls = {name: [*common, *(["--arena", written(arena)] if arena else [])] for name, arena in arenas.items()}
        say(f"{family.name}, batch {batch}: what the arenas hold")
        uses = {name: ArenaUse(**_told([*call, "--profile"])) for name, call in calls.items()}
        best = choice(uses)
        timed = {DEFAULT: calls[DEFAULT], CHOSEN: calls[best]}
        if self.everything:
            timed |= {name: call for name, call in calls.items() if name not in (DEFAULT, best)}
        rounds = self._rounds(f"{family.name}, batch {batch}", timed)
        say(f"{family.name}, batch {batch}: by turns")
        compared = {name: arenas[best if name == CHOSEN else name] for name in timed}
        turns = by_turns(path, compared, feed, threads=self.threads, plan=self.plan)
        held = {name: Held(held=use.held, most=use.most_held, in_use=use.most_in_use) for name, use in uses.items()}
        return Case(
            title=family.title,
            batch=batch,
            origin=self.origin,
            plan=Planned(
                arena=planned.arena_bytes,
                lower_bound=planned.lower_bound_bytes,
                fragmentation=planned.fragmentation,
            ),
            held=held,
            choice=best,
            turns=turns,
            measured={
                name: Measured(
                    arena=held[best if name == CHOSEN else name],
                    seconds=tuple(each["seconds"] for each in told),
                    pss=tuple(each["pss"] for each in told),
                    peak=tuple(each["peak"] for each in told),
                    group_peak=tuple(each["group_peak"] for each in told if each["group_peak"] is not None),
                )
                for name, told in rounds.items()
            },
        )

    def _rounds(self, title: str, calls: Mapping[str, Sequence[str]]) -> dict[str, list[dict[str, Any]]]:
        """What every engine told in every round; the order within a round is a random one."""
        order = random.Random(0)
        told: dict[str, list[dict[str, Any]]] = {name: [] for name in calls}
        for number in range(self.rounds):
            say(f"{title}: round {number + 1} of {self.rounds}")
            names = list(calls)
            order.shuffle(names)
            for name in names:
                with group(self.parent, f"openclaw-bench-{number}") as folder:
                    more = ["--group", str(folder)] if folder else []
                    told[name].append(_told([*calls[name], "--seconds", str(self.seconds), *more]))
        return told

    def _planner(self) -> Planning:
        say("planner: random lifetimes")
        sets = [random_lifetimes(seed, 20 + seed) for seed in range(20 if self.small else 200)]
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


def _told(call: Sequence[str]) -> dict[str, Any]:
    """What an engine's process prints."""
    command = [sys.executable, "-m", "benchmarks.memory.engine", *call]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_LIMIT, check=False)
    if done.returncode:
        raise OpenClawError(f"an engine ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


if __name__ == "__main__":
    main()
