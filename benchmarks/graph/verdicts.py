"""Each target of the optimizer beside what was measured. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping

from benchmarks.graph.families import FAMILIES
from benchmarks.graph.figures import Ratio, ratio
from benchmarks.graph.records import DEFAULT, FP32, INT8, Case, FamilyRecord, Results, RowRecord, Stream, Throughput
from benchmarks.graph.rows import ROWS
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
    told = {name: (each.median, str(each)) for name, each in found.items()}
    whole = {f"{family.name}, {batch}" for family in FAMILIES for batch in family.batches}
    there = {
        f"{name}, {case.batch}"
        for name, record in results.families.items()
        for case in record.cases
        if FP32 in case.seconds
    }
    yield _worst(target, told, NEVER_SLOWER, missing=len(whole - there))
    errors = {
        record.title: record.forms[FP32].agreement["relative"]
        for record in results.families.values()
        if FP32 in record.forms
    }
    target = f"fp32: outputs equal within {LOSSLESS:g} relative, on every family"
    told = {name: (each, f"{each:.1e}") for name, each in errors.items()}
    yield _worst(target, told, LOSSLESS, missing=_missing(results, FP32))


def _missing(results: Results, form: str) -> int:
    """How many of all families have no such form here."""
    there = {name for name, record in results.families.items() if form in record.forms}
    return len({family.name for family in FAMILIES} - there)


def _of(count: int, missing: int) -> str:
    """How many were measured, and how many there are where these are not all."""
    return f"of {count}" if not missing else f"of {count}, of {count + missing} expected"


def _holds(*, broken: bool, missing: int) -> bool | None:
    """What breaks a target breaks it whatever is missing; that it holds is only known of all."""
    return False if broken else None if missing else True


def _worst(target: str, found: Mapping[str, tuple[float, str]], most: float, *, missing: int) -> Verdict:
    """Of values and how they are told: the largest decides."""
    if not found:
        return Verdict(target, NOT_MEASURED, None)
    name, (value, told) = max(found.items(), key=lambda each: each[1][0])
    holds = _holds(broken=value > most, missing=missing)
    return Verdict(target, f"at worst {told}: {name} ({_of(len(found), missing)})", holds)


def closed(row: RowRecord) -> bool:
    """Whether a row's model became faster beyond the noise: something was kept, and the interval is below 1."""
    found = of_case(row.case, FP32)
    return row.kept is not None and found is not None and found.high < 1


def _rows(results: Results) -> Iterator[Verdict]:
    target = "fp32: faster wherever a row of the table of gaps applies"
    rows = results.rows.values()
    missing = len({row.name for row in ROWS} - set(results.rows))
    left = [f"{row.name} {of_case(row.case, FP32)}" for row in rows if not closed(row)]
    told = f"{len(rows) - len(left)} {_of(len(rows), missing)}"
    told += f"; not closed: {', '.join(left)}" if left else ""
    yield Verdict(target, told if rows else NOT_MEASURED, _holds(broken=bool(left), missing=missing) if rows else None)


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
    missing = _missing(results, FP32)
    measured = f"{len(counted) - len(more)} {_of(len(counted), missing)}"
    measured += f"; not: {'; '.join(more)}" if more else ""
    target = "No family ends with more nodes than onnxruntime's own best leaves"
    holds = _holds(broken=bool(more), missing=missing) if counted else None
    yield Verdict(target, measured if counted else NOT_MEASURED, holds)


def _sizes(results: Results) -> Iterator[Verdict]:
    target = f"INT8: at most {_SIZE:.0%} of the size of fp32"
    found = {
        record.title: record.forms[INT8].bytes / record.bytes
        for name, record in results.families.items()
        if name in _LATENCY and INT8 in record.forms
    }
    large = [f"{name} {share:.1%}" for name, share in found.items() if share > _SIZE]
    fits = [f"{name} {share:.1%}" for name, share in found.items() if share <= _SIZE]
    missing = len(set(_LATENCY) - {name for name, record in results.families.items() if INT8 in record.forms})
    told = "; ".join(filter(None, [", ".join(fits), f"not: {', '.join(large)}" if large else ""]))
    told += f" ({_of(len(found), missing)})" if missing else ""
    holds = _holds(broken=bool(large), missing=missing) if found else None
    yield Verdict(target, told if found else NOT_MEASURED, holds)


def _stream(results: Results) -> Iterator[Verdict]:
    faster = "ResNet50: INT8 in batches of 16 with a pipeline at least 4x the frames of unoptimized fp32, one by one"
    smaller = "The same: peak memory of the process at most 0.4x of unoptimized fp32"
    found = results.throughput
    if found is None:
        yield Verdict(faster, NOT_MEASURED, None)
    else:
        rate = ratio(found.ours.frames_per_second, found.single.frames_per_second)
        frames = [statistics.median(each.frames_per_second) for each in (found.single, found.ours)]
        told = f"{rate}: {frames[0]:.1f} to {frames[1]:.1f} a second; ours: {found.runs}"
        yield Verdict(faster, told, rate.median >= 4)
    for how, name in (("one by one", "single"), ("with as many frames at once", "batched")):
        yield _memory(f"{smaller}, {how}", found, than=name)


def _memory(target: str, found: Throughput | None, *, than: str) -> Verdict:
    if found is None:
        return Verdict(target, NOT_MEASURED, None)
    other: Stream = getattr(found, than)
    share = ratio(found.ours.peak_bytes, other.peak_bytes)
    sizes = [statistics.median(each.peak_bytes) / 2**20 for each in (other, found.ours)]
    return Verdict(target, f"{share}: {sizes[0]:.0f} to {sizes[1]:.0f} MiB", share.median <= 0.4)


def _effort(results: Results) -> Iterator[Verdict]:
    cached = "A cached result takes under 1 s"
    for target, name, most in (
        ("Optimizing ResNet50, with all that is tried by default, takes under 120 s", "first", 120.0),
        (f"{cached}, as a call in a process that is there", "cached", 1.0),
        (f"{cached}, as `openclaw optimize` from its start to its end", "command", 1.0),
    ):
        if results.effort is None:
            yield Verdict(target, NOT_MEASURED, None)
        else:
            seconds: float = getattr(results.effort, name)
            yield Verdict(target, f"{seconds:.2f} s", seconds < most)
