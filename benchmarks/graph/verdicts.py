"""Each target of the optimizer beside what was measured. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping

from benchmarks.graph.figures import Ratio, ratio
from benchmarks.graph.records import DEFAULT, FP32, INT8, Case, FamilyRecord, Results
from benchmarks.targets import NOT_MEASURED, Verdict

NEVER_SLOWER = 1.02
LOSSLESS = 1e-4
_FEWER_NODES = 0.86
_SIZE = 0.26
_LATENCY = {"resnet50": 0.33, "bert": 0.36, "minilm": 0.45, "digits": 0.6}


def verdicts(results: Results) -> list[Verdict]:
    """All of them."""
    return [
        *_latencies(results),
        *_accuracy(results),
        *_never_slower(results),
        *_rows(results),
        *_nodes(results),
        *_sizes(results),
        *_stream(results),
        *_effort(results),
    ]


def of_case(case: Case, form: str) -> Ratio | None:
    """A form's latency to the default's."""
    mine, default = case.seconds.get(form), case.seconds.get(DEFAULT)
    return ratio(mine, default) if mine and default else None


def _latencies(results: Results) -> Iterator[Verdict]:
    for name, most in _LATENCY.items():
        record = results.families.get(name)
        for batch in (1, 16):
            target = (
                f"{record.title if record else name}, batch {batch}: lower precision at most {most}x of the default"
            )
            found = _at(record, batch, INT8)
            yield Verdict(
                target, str(found) if found else NOT_MEASURED, None if found is None else found.median <= most
            )


def _at(record: FamilyRecord | None, batch: int, form: str) -> Ratio | None:
    cases = [case for case in record.cases if case.batch == batch] if record else []
    return of_case(cases[0], form) if cases else None


def _accuracy(results: Results) -> Iterator[Verdict]:
    target = "MiniLM: cosine to fp32 at least 0.99 in the mean and 0.98 at worst, on held-out sentences"
    minilm = results.families.get("minilm")
    form = minilm.forms.get(INT8) if minilm else None
    if form is None:
        yield Verdict(target, NOT_MEASURED, None)
    else:
        mean, worst = form.agreement["cosine"], form.agreement["cosine-worst"]
        yield Verdict(target, f"{mean:.4f}, worst {worst:.4f}", mean >= 0.99 and worst >= 0.98)
    target = "Digits: top-1 loss at most 0.2 points, on held-out images"
    digits = results.families.get("digits")
    form = digits.forms.get(INT8) if digits else None
    if digits is None or form is None or digits.labels is None or form.labels is None:
        yield Verdict(target, NOT_MEASURED, None)
    else:
        loss = 100 * (digits.labels - form.labels)
        yield Verdict(target, f"{100 * digits.labels:.1f} % to {100 * form.labels:.1f} %", loss <= 0.2 + 1e-9)


def _never_slower(results: Results) -> Iterator[Verdict]:
    found = {
        f"{record.title}, batch {case.batch}": each
        for record in results.families.values()
        for case in record.cases
        if (each := of_case(case, FP32)) is not None
    }
    target = f"fp32: never slower than {NEVER_SLOWER}x of the default, on any family"
    yield _worst(target, {name: (each.median, str(each)) for name, each in found.items()}, NEVER_SLOWER)
    errors = {
        record.title: record.forms[FP32].agreement["relative"]
        for record in results.families.values()
        if FP32 in record.forms
    }
    target = f"fp32: outputs equal within {LOSSLESS:g} relative, on every family"
    yield _worst(target, {name: (each, f"{each:.1e}") for name, each in errors.items()}, LOSSLESS)


def _worst(target: str, found: Mapping[str, tuple[float, str]], most: float) -> Verdict:
    """Of values and how they are told: the largest decides."""
    if not found:
        return Verdict(target, NOT_MEASURED, None)
    name, (value, told) = max(found.items(), key=lambda each: each[1][0])
    return Verdict(target, f"at worst {told}: {name} (of {len(found)})", value <= most)


def _rows(results: Results) -> Iterator[Verdict]:
    target = "fp32: faster wherever a row of the table of gaps applies"
    found = {row.name: each for row in results.rows.values() if (each := of_case(row.case, FP32)) is not None}
    slow = [f"{name} {each}" for name, each in found.items() if each.median >= 1]
    told = f"{len(found) - len(slow)} of {len(found)}" + (f"; not: {', '.join(slow)}" if slow else "")
    yield Verdict(target, told if found else NOT_MEASURED, not slow if found else None)


def best_of_onnxruntime(record: FamilyRecord) -> int:
    """The fewest nodes that any of onnxruntime's own ways leaves, offline."""
    return min(count for name, count in record.nodes.items() if name != "exported")


def _nodes(results: Results) -> Iterator[Verdict]:
    bert = results.families.get("bert")
    target = f"BERT-base: at least {_FEWER_NODES:.0%} fewer nodes than exported"
    if bert is None or FP32 not in bert.forms:
        yield Verdict(target, NOT_MEASURED, None)
    else:
        fewer = 1 - bert.forms[FP32].nodes / bert.nodes["exported"]
        told = f"{bert.nodes['exported']} to {bert.forms[FP32].nodes}: {fewer:.1%} fewer"
        yield Verdict(target, told, fewer >= _FEWER_NODES)
    counted = [record for record in results.families.values() if FP32 in record.forms]
    more = [
        f"{record.title}: {record.forms[FP32].nodes}, onnxruntime {best_of_onnxruntime(record)}"
        for record in counted
        if record.forms[FP32].nodes > best_of_onnxruntime(record)
    ]
    measured = f"{len(counted) - len(more)} of {len(counted)}" + (f"; not: {'; '.join(more)}" if more else "")
    target = "No family ends with more nodes than onnxruntime's own best leaves"
    yield Verdict(target, measured if counted else NOT_MEASURED, not more if counted else None)


def _sizes(results: Results) -> Iterator[Verdict]:
    target = f"INT8: at most {_SIZE:.0%} of the size of fp32"
    found = {
        record.title: record.forms[INT8].bytes / record.bytes
        for name, record in results.families.items()
        if name in _LATENCY and INT8 in record.forms
    }
    large = [f"{name} {share:.1%}" for name, share in found.items() if share > _SIZE]
    fits = [f"{name} {share:.1%}" for name, share in found.items() if share <= _SIZE]
    told = "; ".join(filter(None, [", ".join(fits), f"not: {', '.join(large)}" if large else ""]))
    yield Verdict(target, told if found else NOT_MEASURED, not large if found else None)


def _stream(results: Results) -> Iterator[Verdict]:
    targets = (
        "ResNet50: INT8 in batches of 16 with a pipeline at least 4x the frames of unoptimized fp32, one by one",
        "The same: peak memory of the process at most 0.4x of unoptimized fp32 with as many frames at once",
    )
    if results.throughput is None:
        yield from (Verdict(target, NOT_MEASURED, None) for target in targets)
        return
    single, batched, ours = results.throughput.single, results.throughput.batched, results.throughput.ours
    rate = ratio(ours.frames_per_second, single.frames_per_second)
    frames = [statistics.median(each.frames_per_second) for each in (single, ours)]
    yield Verdict(targets[0], f"{rate}: {frames[0]:.1f} to {frames[1]:.1f} a second", rate.median >= 4)
    memory = ratio(ours.peak_bytes, batched.peak_bytes)
    sizes = [statistics.median(each.peak_bytes) / 2**20 for each in (batched, ours, single)]
    told = (
        f"{memory}: {sizes[0]:.0f} to {sizes[1]:.0f} MiB; {sizes[1] / sizes[2]:.2f}x of one by one ({sizes[2]:.0f} MiB)"
    )
    yield Verdict(targets[1], told, memory.median <= 0.4)


def _effort(results: Results) -> Iterator[Verdict]:
    targets = "Optimizing ResNet50 takes under 120 s", "A cached result takes under 1 s"
    effort = results.effort
    first, cached = (effort.first, effort.cached) if effort else (None, None)
    for target, seconds, most in zip(targets, (first, cached), (120.0, 1.0), strict=True):
        if seconds is None:
            yield Verdict(target, NOT_MEASURED, None)
        else:
            yield Verdict(target, f"{seconds:.2f} s", seconds < most)
