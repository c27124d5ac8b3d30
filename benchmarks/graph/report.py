"""What was measured: a table to read, JSON to compute with, and pictures."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from benchmarks import markdown, targets
from benchmarks.graph import picture
from benchmarks.graph.records import DEFAULT, FP32, INT8, FamilyRecord, Optimized, Results
from benchmarks.graph.verdicts import best_of_onnxruntime, closed, of_case, verdicts
from benchmarks.records import Origin

_METRICS = {"top1": "top-1", "cosine": "cosine", "overlap": "overlap", "max-abs": "largest difference"}
_FORMS = {FP32: "fp32", INT8: "lower"}


def written(results: Results, folder: Path) -> str:
    """Writes graph.json, graph.md, graph.svg and graph-frontier.svg into `folder`; gives the text of the second."""
    folder.mkdir(parents=True, exist_ok=True)
    text = table(results)
    (folder / "graph.json").write_text(results.model_dump_json(indent=1) + "\n")
    (folder / "graph.md").write_text(text)
    (folder / "graph.svg").write_text(picture.ratios(results))
    (folder / "graph-frontier.svg").write_text(picture.frontier(results))
    return text


def table(results: Results) -> str:
    """All of it as Markdown."""
    facts = results.machine
    origins = {each.commit for each in results.origins().values()} or {str(facts["commit"])}
    sections = [
        "# The graph optimizer's benchmark\n",
        f"{facts['cpu']}, {facts['cores']} cores; {facts['engine']}, {results.threads} threads on both sides; "
        f"commit {', '.join(sorted(origins))}; {facts['date']}. Ratios are to onnxruntime's default (all of its "
        "optimizations) on the exported model, by turns in one process: the median of the rounds, in brackets an "
        "interval that holds it in 95 of 100 times.\n",
        targets.table(verdicts(results)),
        *[f"Left out: {each.splitlines()[0]}\n" for each in results.left_out],
        *_origins(results),
        *_latencies(results),
        *_lower(results),
        *_nodes(results),
        *_rows(results),
        *_frontiers(results),
    ]
    return "\n".join(sections)


def _origins(results: Results) -> Iterator[str]:
    """Which part is of which run, where they are of several."""
    parts: dict[Origin, list[str]] = {}
    for part, origin in results.origins().items():
        parts.setdefault(origin, []).append(part)
    if len(parts) > 1:
        yield "## Parts of several runs\n"
        rows = [[", ".join(names), origin.commit, origin.date] for origin, names in parts.items()]
        yield markdown.table(["Measured", "Commit", "When"], rows)


def _latencies(results: Results) -> Iterator[str]:
    rows = []
    for record in results.families.values():
        for case in record.cases:
            default = statistics.median(case.seconds[DEFAULT])
            ratios = [of_case(case, form) for form in (FP32, INT8)]
            told = [str(each) if each else "" for each in ratios]
            rows.append([record.title, str(case.batch), _milliseconds(default), *told, str(len(case.seconds[DEFAULT]))])
    if rows:
        yield "## Latency\n"
        yield markdown.table(["Model", "Batch", "default, ms", "fp32, lossless", "lower precision", "rounds"], rows)


def _lower(results: Results) -> Iterator[str]:
    rows = []
    for record in results.families.values():
        form = record.forms.get(INT8)
        if form is None:
            rows.append([record.title, f"none: {record.errors.get(INT8, 'not measured')}", "", "", ""])
            continue
        size, took = f"{form.bytes / record.bytes:.1%}", f"{form.seconds:.0f}"
        rows.append([record.title, form.kept or "the exported model", size, _agreement(record, form), took])
    if rows:
        yield "## Lower precision\n"
        yield "Weights are random but for MiniLM and the digits, so agreement is told for the others and not judged.\n"
        yield markdown.table(["Model", "What was kept", "Size", "Agreement with fp32, held out", "Seconds"], rows)


def _agreement(record: FamilyRecord, form: Optimized) -> str:
    told = f"{_METRICS[record.metric]} {form.agreement[record.metric]:.4f}"
    if record.metric == "cosine":
        told += f", worst {form.agreement['cosine-worst']:.4f}"
    if record.labels is not None and form.labels is not None:
        told += f"; right: {record.labels:.1%} to {form.labels:.1%}"
    return told


def _nodes(results: Results) -> Iterator[str]:
    rows = []
    for record in results.families.values():
        if FP32 not in record.forms:
            continue
        best = best_of_onnxruntime(record)
        way = next(name for name, count in record.nodes.items() if count == best and name != "exported")
        ours = record.forms[FP32]
        rows.append(
            [
                record.title,
                str(record.nodes["exported"]),
                f"{best} ({way})",
                str(ours.nodes),
                str(ours.loaded),
                ours.kept or "",
            ]
        )
    if rows:
        yield "## Nodes, in files that any machine can run\n"
        yield markdown.table(
            ["Model", "Exported", "onnxruntime's best", "Ours, fp32", "Ours, loaded", "What was kept"], rows
        )


def _rows(results: Results) -> Iterator[str]:
    rows = []
    for row in results.rows.values():
        found = of_case(row.case, FP32)
        counted = f"{row.nodes['exported']} to {row.nodes[FP32]}"
        what = row.kept or "nothing"
        told = what if closed(row) else f"not closed: {what}"
        rows.append([row.pattern, counted, str(found) if found else "", f"{row.relative:.1e}", told])
    if rows:
        yield "## What onnxruntime does not fuse\n"
        yield (
            "A model for each row, in which the pattern stands alone, with activations as onnxruntime holds them. "
            "Closed is what is faster beyond the noise.\n"
        )
        yield markdown.table(
            ["Exported", "Nodes", "fp32, lossless", "Largest relative difference", "What was kept"], rows
        )


def _frontiers(results: Results) -> Iterator[str]:
    for record in results.families.values():
        form = record.forms.get(INT8)
        if form is None or not record.real:
            continue
        tried = sorted(form.tried, key=lambda each: each.ratio if each.ratio is not None else 9)
        rows = [
            [
                each.name,
                "" if each.ratio is None else f"{each.ratio:.3f} ({each.rounds} rounds)",
                ", ".join(f"{name} {value:.4f}" for name, value in each.accuracy.items()),
                f"{each.bytes / record.bytes:.1%}" if each.bytes else "",
                f"{each.outcome}: {each.reason}",
            ]
            for each in tried
        ]
        yield f"## Everything that was tried on {record.title}\n"
        yield (
            "As the optimizer found it: latency through the default's by turns, of the final where there are many "
            "rounds, of a short heat where there are few, before memory is chosen; accuracy on the half of the "
            "samples that judges; size through the exported file's.\n"
        )
        yield markdown.table(["Candidate", "Latency, median", "Accuracy", "Size", "What became of it"], rows)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"
