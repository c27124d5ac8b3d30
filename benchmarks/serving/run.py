"""`python -m benchmarks.serving.run`: openclaw beside its peers; see --help."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import FrameType

import click
from benchmarks import markdown, targets
from benchmarks.serving import coldstart as cold
from benchmarks.serving import fronts, pauses, report, rolling, soak
from benchmarks.serving.environments import InstallationError, install
from benchmarks.serving.load import LoadError, require_wrk
from benchmarks.serving.models import MLP, MODELS
from benchmarks.serving.session import Plan, Session
from benchmarks.serving.subjects import ROOT, SUBJECTS, Subject
from benchmarks.summary import summary
from benchmarks.targets import Verdict

RESULTS = ROOT / "benchmarks" / "results"
_OTHERS = ("memory", "gc", "sigterm", "coldstart")
_QUIET = 0.5  # load average

_HELP = """Measures the server of this tree beside others, all on this machine.

\b
What is served   a tiny MLP (64-256-128-10), ResNet50, BERT-base; random weights
Who serves       openclaw; MLServer, KServe's server, LitServe and PyTriton, each in
                 an environment of its own under ~/.cache/openclaw/bench-serving;
                 a bare protocol (httptools, no checks): the floor of what HTTP costs;
                 a bare onnxruntime loop: the ceiling
\b
Begin with:
  python -m benchmarks.serving.run compare --quick              minutes, to see that all works
  python -m benchmarks.serving.run compare                      the figures; about an hour
  python -m benchmarks.serving.run compare --only openclaw --model mlp
  python -m benchmarks.serving.run memory | gc | coldstart | sigterm | workers
  python -m benchmarks.serving.run summary                      all targets, as measured last

Figures of a machine that does other things meanwhile are worth nothing: leave it alone.
"""


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """The group of all commands."""
    # A plain SIGTERM would leave the servers behind.
    signal.signal(signal.SIGTERM, _terminated)


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def say(text: str) -> None:
    """Progress; what is asked for goes to stdout."""
    click.echo(text, err=True)


@main.command()
def peers() -> None:
    """Install the peers' environments, and nothing else."""
    for subject in SUBJECTS:
        _install(subject)


@main.command()
@click.option("--rounds", "-r", default=5, show_default=True, help="Times that every server is started anew.")
@click.option("--turns", "-t", default=1, show_default=True, help="Times in each round, one server after the other.")
@click.option("--seconds", "-s", default=2.0, show_default=True, help="Of one load on the MLP; longer of others.")
@click.option("--only", multiple=True, type=click.Choice([each.name for each in SUBJECTS]), help="Of these subjects.")
@click.option("--model", multiple=True, type=click.Choice([each.name for each in MODELS]), help="Of these models.")
@click.option("--quick", is_flag=True, help="One short round: whether all work, not how quickly.")
def compare(
    rounds: int,
    turns: int,
    *,
    seconds: float,
    only: tuple[str, ...],
    model: tuple[str, ...],
    quick: bool,
) -> None:
    """Throughput, latency against load, goodput; a table, JSON and a picture.

    Each round starts every server anew. All are up together, and paused but for the one that is measured, so that
    those that are compared are measured within seconds of each other. What is in the picture but in no target is
    measured in the first round alone.

    Closed loop: wrk keeps connections busy. Open loop: requests are due at a fixed rate, and latency counts from then.
    BERT: Poisson arrivals of 8 to 128 tokens; goodput is what was answered within 500 ms. A subject with several
    settings is measured with each, and its best one counts.
    """
    models = tuple(each for each in MODELS if not model or each.name in model)
    plan = Plan(models, rounds=rounds, turns=turns, seconds=seconds)
    if quick:
        plan = Plan(models, rounds=1, seconds=2.0, connections=(16,), shares=(0.5,), offered=(0.75, 1.5))
    _warn_if_busy()
    left_out = []
    subjects = []
    for subject in SUBJECTS:
        if not only or subject.name in only:
            reason = _install(subject)
            left_out += [f"{subject.name}: {reason}"] if reason else []
            subjects += [] if reason else [subject]
    session = Session(plan, subjects, say, left_out=left_out)
    try:
        require_wrk()
        session.run()
    except LoadError as error:
        raise click.ClickException(str(error)) from error
    finally:
        # Also where it was interrupted: what was measured stays.
        if session.samples:
            click.echo(report.written(session, RESULTS))


def _warn_if_busy() -> None:
    load = os.getloadavg()[0]
    if load > _QUIET:
        say(f"this machine is busy (load average {load:.1f}): that all work can be seen now, but not how quickly")


def _install(subject: Subject) -> str | None:
    """Why it cannot be installed; None where it is."""
    if subject.environment is None:
        return None
    try:
        install(subject.environment, say)
    except InstallationError as error:
        say(f"{subject.name} is left out: {error}")
        return str(error)
    return None


@main.command()
@click.option("--seconds", "-s", default=600.0, show_default=True)
@click.option("--rate", type=float, help="Requests a second. [default: 300 of the MLP, 3 of the others]")
@click.option("--model", "name", default="mlp", type=click.Choice([each.name for each in MODELS]), show_default=True)
@click.option("--quick", is_flag=True, help="20 seconds: whether it works.")
def memory(seconds: float, rate: float | None, *, name: str, quick: bool) -> None:
    """Memory of openclaw under a mixed load: after the first minute against the end.

    Requests with one row and many, JSON and binary, all connections anew every few seconds, and among them requests
    that lie about their size, are not JSON, or end in the middle. The target: no growth beyond 2 %.
    """
    model = next(each for each in MODELS if each.name == name)
    rate = rate or (300.0 if model is MLP else 3.0)
    seconds = 20.0 if quick else seconds
    done = soak.soak(model, seconds=seconds, rate=rate, say=say)
    sizes = [each.size / 2**20 for each in done.resident]
    measured = (
        f"{done.growth:+.2%}; {sizes[0]:.1f} MiB at first, {sizes[-1]:.1f} MiB at the end; {done.answered} requests "
        f"answered, {done.not_answered} not"
    )
    target = f"memory under a mixed load of {seconds:.0f} s: at most 2 % more than after the first minute"
    _kept("memory", done.document(), [Verdict(target, measured, done.flat)])


@main.command("gc")
@click.option("--rounds", "-r", default=5, show_default=True)
@click.option("--seconds", "-s", default=20.0, show_default=True, help="Of load, for each mode in each round.")
@click.option("--rate", default=1000.0, show_default=True, help="Requests a second: the same work for both.")
@click.option("--quick", is_flag=True, help="One round of 3 seconds: whether it works.")
def collections(rounds: int, seconds: float, *, rate: float, quick: bool) -> None:
    """Garbage collector pauses of openclaw: as it is, against OPENCLAW_GC=default.

    The target: p99 and total at most a quarter. Each pause is written down by a callback in the server's process; the
    sum that the server's own metrics report is beside it.
    """
    rounds, seconds = (1, 3.0) if quick else (rounds, seconds)
    runs = pauses.compared(MLP, rounds=rounds, seconds=seconds, rate=rate, say=say)
    for mode in pauses.MODES:
        texts = [
            f"{name} {pauses.median(runs, mode, name) * 1e3:.3f} ms"
            for name in ("total", "reported", "p99", "longest", "latency")
        ]
        say(f"{mode}: {', '.join(texts)} (medians; latency is the requests' p99)")
    _kept("gc", {"runs": [asdict(each) for each in runs]}, pauses.verdicts(runs))


@main.command()
@click.option("--rounds", "-r", default=10, show_default=True)
@click.option("--quick", is_flag=True, help="Two starts: whether it works.")
def coldstart(rounds: int, *, quick: bool) -> None:
    """Process start to first answered inference: openclaw, ResNet50, optimized already and local.

    The target: under 1.0 s. The parts are those of a process that does the same one after the other.
    """
    starts = cold.cold_starts(2 if quick else rounds, say)
    median = cold.medians(starts)
    parts = [[part.replace("_", "-"), f"{took:.3f}"] for part, took in asdict(median).items()]
    click.echo(markdown.table(["Part", "Seconds"], parts))
    verdict = Verdict(
        f"ResNet50, process start to the first answer: under {cold.ALLOWED} s",
        f"{median.total:.2f} s ({min(each.total for each in starts):.2f} to {max(each.total for each in starts):.2f})",
        median.total < cold.ALLOWED,
    )
    document = {"starts": [asdict(each) for each in starts], "median": asdict(median)}
    _kept("coldstart", document, [verdict])


@main.command()
@click.option("--times", "-n", default=20, show_default=True, help="That a server is told to stop.")
@click.option("--told-after", default=2.0, show_default=True, help="Seconds until clients hear of it.")
@click.option("--quick", is_flag=True, help="Twice: whether it works.")
def sigterm(times: int, told_after: float, *, quick: bool) -> None:
    """SIGTERM to openclaw under 64 connections of constant load; counts failed requests.

    Two servers are replaced by turns. The target: none fails, and each server exits with 0.
    """
    done = asyncio.run(rolling.roll(MLP, times=2 if quick else times, told_after=told_after, say=say))
    for reason, count in done.failures.most_common():
        say(f"  {count} x {reason}")
    target = f"SIGTERM under 64 connections of constant load, {len(done.endings)} times: no request fails"
    _kept("sigterm", done.document(), [Verdict(target, f"{done.failed} of {done.answered:,} failed", done.holds)])


@main.command("workers")
@click.option("--rounds", "-r", default=5, show_default=True)
@click.option("--seconds", "-s", default=2.0, show_default=True, help="Of each load.")
@click.option("--quick", is_flag=True, help="One round: whether it works.")
def workers_compared(rounds: int, seconds: float, *, quick: bool) -> None:
    """The tiny MLP served by one process, by two workers on one port, and by two servers with Envoy in front."""
    found = fronts.spreading((16, 64), rounds=1 if quick else rounds, seconds=1.0 if quick else seconds, say=say)
    _kept("workers", {"spreading": [asdict(each) for each in found]}, [])
    rows = [
        [each.setting, str(each.connections), f"{each.rate.median:,.0f}", f"{each.p99.median * 1e3:.2f}"]
        for each in found
    ]
    click.echo(markdown.table(["Served by", "Connections", "Requests/s", "p99 ms"], rows))


@main.command("summary")
def summed_up() -> None:
    """Every target of the serving path beside what was measured last, from what the other commands kept."""
    files = [RESULTS / "serving.json", *(RESULTS / f"serving-{name}.json" for name in _OTHERS)]
    text = summary(files)
    (RESULTS / "serving-summary.md").write_text(text)
    click.echo(text)


def _kept(name: str, document: Mapping[str, object], verdicts: Sequence[Verdict]) -> None:
    """Writes a command's JSON beside the others, and shows what it came to."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = {"machine": report.machine(), **document, "verdicts": [asdict(each) for each in verdicts]}
    (RESULTS / f"serving-{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    if verdicts:
        click.echo(targets.table(verdicts))


if __name__ == "__main__":
    main()
