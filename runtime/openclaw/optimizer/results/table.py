"""The report as a table for people."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from openclaw.optimizer.results.report import Candidate, Latency, Report

_COLOURS = {"kept": "green", "refused": "yellow", "not applicable": "dim"}


def render(report: Report) -> RenderableType:
    """Everything that a user decides by; what machines want is in the JSON."""
    parts: list[RenderableType] = []
    if report.candidates:
        parts.append(_table(report))
        parts += [
            Text(f"{one.name}: {one.outcome}: {one.reason}", style=_COLOURS[one.outcome]) for one in report.candidates
        ]
    if report.judged_on:
        parts.append(Text(f"Judged on {report.judged_on} against {report.budget}."))
    parts += [Text(note) for note in report.notes]
    before, after = report.exported, report.result
    parts.append(
        Text(
            f"{before.nodes} -> {after.nodes} nodes, {before.bytes / 1e6:.1f} -> {after.bytes / 1e6:.1f} MB, "
            f"on {report.machine.threads} threads of {report.machine.processor}, in {report.seconds:.1f} s"
            + (" (from the cache)" if report.cached else "")
        )
    )
    parts.append(Text(report.verdict, style="bold"))
    return Group(*parts)


def show(report: Report, console: Console | None = None) -> None:
    """Prints it, to stdout by default."""
    (console or Console(highlight=False)).print(render(report))


def _table(report: Report) -> Table:
    table = Table(title=report.source, title_justify="left", pad_edge=False)
    for name, right in (("candidate", False), ("ms", True), ("ratio", True), ("MB", True), ("accuracy", False)):
        table.add_column(name, justify="right" if right else "left", no_wrap=name == "candidate")
    table.add_column("outcome")
    table.add_row("onnxruntime's default", _ms(report.baseline), "1", f"{report.exported.bytes / 1e6:.1f}", "", "")
    for one in report.candidates:
        table.add_row(*_row(one), style=_COLOURS[one.outcome])
    return table


def _row(one: Candidate) -> tuple[str, ...]:
    ratio = "" if one.ratio is None else f"{one.ratio.median:.3f}"
    accuracy = [] if one.accuracy is None else [f"{name} {value:.4f}" for name, value in one.accuracy.values.items()]
    size = "" if one.form is None else f"{one.form.bytes / 1e6:.1f}"
    return one.name, _ms(one.latency), ratio, size, "\n".join(accuracy), one.outcome


def _ms(latency: Latency | None) -> str:
    if latency is None:
        return ""
    spread = (latency.third_quartile_seconds - latency.first_quartile_seconds) / 2
    return f"{latency.median_seconds * 1e3:.3g} ± {spread * 1e3:.2g}"
