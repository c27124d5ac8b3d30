"""What was measured: a table to read, JSON to compute with, and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from benchmarks import markdown, targets
from benchmarks.memory import picture
from benchmarks.memory.kept import COMPARED
from benchmarks.memory.records import Case, Lowered, Results
from benchmarks.memory.settings import ENGINES, LOWER, MOST_SITTINGS, SITTINGS, WITHIN
from benchmarks.memory.verdicts import grouped, held, most, peak, resident, slower, verdicts
from benchmarks.serving.figures import spread

from openclaw.memory.choice import DEFAULT

_MIB = 1 << 20


def written(results: Results, folder: Path) -> str:
    """Writes memory.json, memory.md and memory.svg into `folder`; gives the text of the second."""
    results = results.model_copy(update={"verdicts": tuple(verdicts(results))})
    text = table(results)
    (folder / f"{COMPARED}.json").write_text(results.model_dump_json(indent=1) + "\n")
    (folder / f"{COMPARED}.md").write_text(text)
    (folder / f"{COMPARED}.svg").write_text(picture.arenas(results))
    return text


def table(results: Results) -> str:
    """All of it as Markdown."""
    facts = results.machine
    origins = {each.origin.commit for each in results.cases.values()} or {results.commit}
    sections = [
        "# The memory manager's benchmark\n",
        f"{facts['cpu']}, {facts['cores']} cores; {facts['engine']}, {results.threads} threads on both sides; "
        f"commit {', '.join(sorted(origins))}; {facts['date']}. Each engine in a process of its own, by turns: the "
        "median of the rounds, in brackets the least and the most, of latency ratios an interval that holds the "
        "median in 95 of 100 times.\n",
        *(["The models are small ones: nothing follows for the targets.\n"] if results.small else []),
        targets.table(verdicts(results)),
        *[f"Left out: {each.splitlines()[0]}\n" for each in results.left_out],
        *_held(results),
        *_processes(results),
        *_lowered(results),
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
        "that was chosen. Outputs are counted in: those of a batch that is run at once lie in the arena, those of one "
        "that is run a few rows at a time beside it. Plan: arena and lower bound of the exported graph, all rows at "
        "once.\n"
    )
    yield markdown.table(["Model", "Batch", "Plan", *names], rows)


def _plan(case: Case) -> str:
    return f"{case.plan.arena / _MIB:.1f} ({case.plan.lower_bound / _MIB:.1f})"


def _share(case: Case, name: str) -> str:
    mine, share = case.measured.get(name), held(case, name)
    if mine is None or share is None:
        return ""
    amount = f"{mine.arena.whole / _MIB:.1f}"
    return amount if name == DEFAULT else f"{amount} ({share:.2f}; {mine.way})"


def _processes(results: Results) -> Iterator[str]:
    rows = [
        [case.title, str(case.batch), _engine(case, name), *_process(case, name)]
        for case in results.cases.values()
        for name in ENGINES
        if name in case.measured
    ]
    if not rows:
        return
    yield "## Processes\n"
    yield (
        "MiB after the runs (PSS), and the most that the process's control group had, from its first instruction to "
        "its last (resident: there was no group, so the most that was resident); both through the default's. Latency "
        "there, and its ratio to the default's by turns in one process, "
        f"opened anew {SITTINGS} to {MOST_SITTINGS} times, until its interval is {WITHIN - 1:.0%} wide.\n"
    )
    yield markdown.table(["Model", "Batch", "Engine", "After", "", "Most", "", "ms", "of default"], rows)


def _engine(case: Case, name: str) -> str:
    return f"{name}: {case.lower.precision}" if name == LOWER else name


def _process(case: Case, name: str) -> list[str]:
    measured, ratio = case.measured[name], slower(case, name)
    after = spread([each / _MIB for each in measured.pss])
    return [
        f"{after.median:.0f} ({after.low:.0f} to {after.high:.0f})",
        _through(resident(case, name), name),
        f"{(peak(case, name) or 0) / _MIB:.0f}{'' if grouped(case) else ' resident'}",
        _through(most(case, name), name),
        f"{statistics.median(measured.seconds) * 1e3:.1f}",
        "" if name == DEFAULT or ratio is None else str(ratio),
    ]


def _through(share: float | None, name: str) -> str:
    return "" if name == DEFAULT or share is None else f"{share:.2f}"


def _lowered(results: Results) -> Iterator[str]:
    forms = {case.title: case.lower for case in results.cases.values()}
    if not forms:
        return
    yield "## What the accuracy guard allows\n"
    yield (
        "`openclaw optimize --precision int8 --memory least`, with the budget that it has unasked. Weights are random, "
        "which lower precisions bear worse than trained ones: where the guard refuses them all, the exact form counts "
        "as it is.\n"
    )
    rows = [[title, each.precision, each.recipe or "as exported", *_guarded(each)] for title, each in forms.items()]
    yield markdown.table(["Model", "Precision", "Recipe", "Asked for", "Reached", "Judged on", "Refused"], rows)


def _guarded(lower: Lowered) -> list[str]:
    reached = ", ".join(f"{name} {value:.4f}" for name, value in lower.accuracy.items())
    return [lower.budget or "", reached, lower.judged_on or "", lower.refused or ""]
