"""What was measured: a table to read, JSON to compute with, and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import markdown, targets
from benchmarks.memory import picture
from benchmarks.memory.records import Case, Results
from benchmarks.memory.settings import CHOSEN
from benchmarks.memory.verdicts import slower, verdicts
from benchmarks.serving.figures import spread

from openclaw.memory.choice import DEFAULT

_MIB = 1 << 20


def written(results: Results, folder: Path) -> str:
    """Writes memory.json, memory.md and memory.svg into `folder`; gives the text of the second."""
    folder.mkdir(parents=True, exist_ok=True)
    text = table(results)
    (folder / "memory.json").write_text(results.model_dump_json(indent=1) + "\n")
    (folder / "memory.md").write_text(text)
    (folder / "memory.svg").write_text(picture.arenas(results))
    return text


def table(results: Results) -> str:
    """All of it as Markdown."""
    facts = results.machine
    origins = {each.origin.commit for each in results.cases.values()} or {str(facts["commit"])}
    sections = [
        "# The memory manager's benchmark\n",
        f"{facts['cpu']}, {facts['cores']} cores; {facts['engine']}, {results.threads} threads on both sides; "
        f"commit {', '.join(sorted(origins))}; {facts['date']}. Each engine in a process of its own, by turns: the "
        "median of the rounds, in brackets the least and the most, of latency ratios an interval that holds the "
        "median in 95 of 100 times.\n",
        targets.table(verdicts(results)),
        *[f"Left out: {each.splitlines()[0]}\n" for each in results.left_out],
        *_held(results),
        *_processes(results),
    ]
    return "\n".join(sections)


def _held(results: Results) -> Iterator[str]:
    cases = list(results.cases.values())
    if not cases:
        return
    names = [name for name in cases[0].held if name != DEFAULT]
    rows = []
    for case in cases:
        default = case.held[DEFAULT].held
        shares = [f"**{share}**" if name == case.choice else share for name, share in _shares(case, names)]
        plan = f"{case.plan.arena / _MIB:.1f} ({case.plan.lower_bound / _MIB:.1f})"
        rows.append([case.title, str(case.batch), plan, f"{default / _MIB:.1f}", *shares])
    yield "## What the arenas hold\n"
    yield (
        "MiB of activations in onnxruntime's own profile, in the last of three runs, and for other arenas than the "
        "default's through that; in brackets if it was more at first. The least is what is chosen. Plan: arena and "
        "lower bound of the exported graph.\n"
    )
    yield markdown.table(["Model", "Batch", "Plan", "default", *names], rows)


def _shares(case: Case, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    default = case.held[DEFAULT].held
    for name in names:
        held = case.held.get(name)
        if held is None or not default:
            yield name, ""
            continue
        more = f" ({held.most / default:.2f})" if held.most > held.held else ""
        yield name, f"{held.held / default:.2f}{more}"


def _processes(results: Results) -> Iterator[str]:
    rows = [
        [case.title, str(case.batch), f"chosen: {case.choice}" if name == CHOSEN else name, *_process(case, name)]
        for case in results.cases.values()
        for name, measured in case.measured.items()
        if measured.seconds
    ]
    if rows:
        yield "## Processes\n"
        yield (
            "MiB after the runs (PSS), and the most that was resident; latency there, and its ratio to the default's "
            "by turns in one process.\n"
        )
        yield markdown.table(["Model", "Batch", "Arena", "After", "Most", "ms", "of default"], rows)


def _process(case: Case, name: str) -> list[str]:
    measured, ratio = case.measured[name], slower(case, name)
    after = spread([each / _MIB for each in measured.pss])
    return [
        f"{after.median:.0f} ({after.low:.0f} to {after.high:.0f})",
        f"{statistics.median(measured.peak) / _MIB:.0f}",
        f"{statistics.median(measured.seconds) * 1e3:.1f}",
        "" if name == DEFAULT or ratio is None else str(ratio),
    ]
