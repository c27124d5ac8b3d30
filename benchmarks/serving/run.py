"""`python -m benchmarks.serving.run`: openclaw beside its peers; see --help."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

import click
from benchmarks.serving import report
from benchmarks.serving.environments import InstallationError, install
from benchmarks.serving.load import LoadError, require_wrk
from benchmarks.serving.models import MODELS
from benchmarks.serving.session import Plan, Session
from benchmarks.serving.subjects import ROOT, SUBJECTS, Subject

RESULTS = ROOT / "benchmarks" / "results"

_HELP = """Measures the server of this tree beside others, all on this machine.

\b
What is served   a tiny MLP (64-256-128-10), ResNet50, BERT-base; random weights
Who serves       openclaw; MLServer, KServe's server, LitServe and PyTriton, each in
                 an environment of its own under ~/.cache/openclaw/bench-serving;
                 a bare protocol (httptools, no checks): the floor of what HTTP costs;
                 a bare onnxruntime loop: the ceiling
\b
Begin with:
  python -m benchmarks.serving.run compare --quick              minutes, to see that all work
  python -m benchmarks.serving.run compare                      the figures; an hour or more
  python -m benchmarks.serving.run compare --only openclaw --model mlp
  python -m benchmarks.serving.run memory | gc | coldstart | sigterm

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
@click.option("--rounds", "-r", default=5, show_default=True, help="Times that all is measured, by turns.")
@click.option("--seconds", "-s", default=4.0, show_default=True, help="Of one load on the MLP; others 3 times that.")
@click.option("--only", multiple=True, type=click.Choice([each.name for each in SUBJECTS]), help="Of these subjects.")
@click.option("--model", multiple=True, type=click.Choice([each.name for each in MODELS]), help="Of these models.")
@click.option("--serve-bert", default="", metavar="OPTIONS", help="More options of `openclaw serve`, for BERT alone.")
@click.option("--quick", is_flag=True, help="One short round: whether all work, not how quickly.")
def compare(
    rounds: int, seconds: float, *, only: tuple[str, ...], model: tuple[str, ...], serve_bert: str, quick: bool
) -> None:
    """Throughput, latency against load, goodput; a table, JSON and a picture.

    Each round starts every server anew. Closed loop: wrk keeps connections busy. Open loop: requests are due at a
    fixed rate, and latency counts from then. BERT: Poisson arrivals of 8 to 128 tokens; goodput is what was answered
    within 500 ms. A peer with several settings is measured with each, and its best one counts.
    """
    models = tuple(each for each in MODELS if not model or each.name in model)
    extra = tuple(serve_bert.split())
    plan = Plan(models, rounds=rounds, seconds=seconds, arguments=extra)
    if quick:
        plan = Plan(
            models, rounds=1, seconds=1.0, connections=(16,), shares=(0.5,), offered=(0.75, 1.5), arguments=extra
        )
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
    click.echo(report.written(session, RESULTS))


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


def results_file(name: str) -> Path:
    """Where a command writes its JSON."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    return RESULTS / name


if __name__ == "__main__":
    main()
