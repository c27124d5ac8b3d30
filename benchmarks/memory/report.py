"""What was measured: a table to read, JSON to compute with, and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from benchmarks import markdown, targets
from benchmarks.memory import picture
from benchmarks.memory.records import Case, Results
from benchmarks.memory.settings import ENGINES, LOWER
from benchmarks.memory.verdicts import held, slower, verdicts
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
    names = [name for name in ENGINES if any(name in case.measured for case in cases)]
    rows = [[case.title, str(case.batch), _plan(case), *(_share(case, name) for name in names)] for case in cases]
    yield "## What is held of activations\n"
    yield (
        "MiB in onnxruntime's own profile, in the last of three runs; in brackets through the default's, and the way "
        "that was chosen. Plan: arena and lower bound of the exported graph, all rows at once.\n"
    )
    yield markdown.table(["Model", "Batch", "Plan", *names], rows)


def _plan(case: Case) -> str:
    return f"{case.plan.arena / _MIB:.1f} ({case.plan.lower_bound / _MIB:.1f})"


def _share(case: Case, name: str) -> str:
    mine, share = case.measured.get(name), held(case, name)
    if mine is None or share is None:
        return ""
    amount = f"{mine.arena.held / _MIB:.1f}"
    return amount if name == DEFAULT else f"{amount} ({share:.2f}; {mine.way})"


def _processes(results: Results) -> Iterator[str]:
    rows = [
        [case.title, str(case.batch), f"{name}: {case.lower}" if name == LOWER else name, *_process(case, name)]
        for case in results.cases.values()
        for name in ENGINES
        if name in case.measured
    ]
    if not rows:
        return
    yield "## Processes\n"
    yield (
        "MiB after the runs (PSS), and the most that was resident; both through the default's. Latency there, and its "
        "ratio to the default's by turns in one process.\n"
    )
    yield markdown.table(["Model", "Batch", "Engine", "After", "", "Most", "", "ms", "of default"], rows)


def _process(case: Case, name: str) -> list[str]:
    measured, ratio = case.measured[name], slower(case, name)
    after = spread([each / _MIB for each in measured.pss])
    default = case.measured.get(DEFAULT)
    shares: tuple[str, ...] = ("", "")
    if default is not None and name != DEFAULT:
        pairs = ((measured.pss, default.pss), (measured.peak, default.peak))
        shares = tuple(f"{statistics.median(mine) / statistics.median(its):.2f}" for mine, its in pairs)
    return [
        f"{after.median:.0f} ({after.low:.0f} to {after.high:.0f})",
        shares[0],
        f"{statistics.median(measured.peak) / _MIB:.0f}",
        shares[1],
        f"{statistics.median(measured.seconds) * 1e3:.1f}",
        "" if name == DEFAULT or ratio is None else str(ratio),
    ]
