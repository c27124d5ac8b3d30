"""What a session measured: a table to read, JSON to compute with, and the picture."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import markdown, targets
from benchmarks.serving import picture
from benchmarks.serving.environments import engine
from benchmarks.serving.figures import Spread
from benchmarks.serving.samples import Samples
from benchmarks.serving.session import Session
from benchmarks.serving.subjects import BARE, OBJECTIVE, OPENCLAW, ROOT, cores
from benchmarks.serving.verdicts import peaks, verdicts
from benchmarks.targets import Verdict

_TITLES = {"mlp": "Tiny MLP", "resnet50": "ResNet50", "bert": "BERT-base"}
_ENCODINGS = {"json": "JSON", "binary": "binary"}


def written(session: Session, folder: Path) -> str:
    """Writes serving.json, serving.md and serving.svg into `folder`; gives the text of the second."""
    samples = Samples(session.samples)
    rounds = len(samples.values("round"))  # fewer than planned where it was interrupted
    told = verdicts(samples, half=session.half)
    document = {
        "machine": machine(),
        "rounds": rounds,
        "seconds": session.plan.seconds,
        "left_out": session.left_out,
        "verdicts": [asdict(each) for each in told],
        "samples": [_plain(asdict(each)) for each in session.samples],
    }
    text = table(samples, told, rounds=rounds, left_out=session.left_out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "serving.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "serving.md").write_text(text)
    (folder / "serving.svg").write_text(picture.latency_against_load(samples.where(model="mlp", load="open")))
    return text


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: the percentiles of no answers are null."""
    return {name: None if value != value else value for name, value in fields.items()}


def machine() -> dict[str, str | float]:
    """What the figures are of."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _text(Path("/proc/cpuinfo")) if line.startswith("model name")), ""
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "cpu": cpu or platform.processor(),
        "cores": cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "engine": engine(),
        "commit": commit.stdout.strip(),
        "load_average": round(os.getloadavg()[0], 2),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def _text(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def table(samples: Samples, told: Sequence[Verdict], *, rounds: int, left_out: Sequence[str]) -> str:
    """All of it as Markdown."""
    facts = machine()
    sections = [
        "# The serving benchmark\n",
        f"{facts['cpu']}, {facts['cores']} cores; {facts['engine']}; commit {facts['commit']}; {facts['date']}. "
        f"Medians of {rounds} round{'s' if rounds != 1 else ''} by turns, in brackets the smallest and the largest; "
        "\\*: of the first round alone.\n",
        targets.table(told),
        *[f"Left out: {each.splitlines()[0]}\n" for each in left_out],
    ]
    for model, title in _TITLES.items():
        own = samples.where(model=model)
        if own.all:
            sections += [f"## {title}\n", *_closed_tables(own), *_open_table(own), *_poisson_table(own)]
    return "\n".join(sections)


def _closed_tables(samples: Samples) -> Iterator[str]:
    """Throughput and p99 by connections, one table an encoding, the quickest first."""
    for encoding in samples.values("encoding"):
        own = samples.where(encoding=encoding)
        closed = own.where(load="closed")
        if not closed.all:
            continue
        levels = sorted(float(str(each)) for each in closed.values("level"))
        last = closed.where(level=16.0 if 16.0 in levels else levels[-1])
        best = last.where(kind="peer").best("rate")
        rows = [_closed_row(closed, str(each), levels, against=(best, last)) for each in _ranked(last)]
        for loop in own.where(load="loop").values("subject"):
            rate = own.where(load="loop").spread("rate")
            rows.append([str(loop), *[_spread(rate, 0 if rate.median >= 100 else 1)] * len(levels), "", ""])
        titles = [f"{level:g} conn., req/s; p99 ms" for level in levels]
        against = f"x best peer ({best})" if best else "x best peer"
        yield f"Closed loop, {_ENCODINGS[str(encoding)]}:\n"
        yield _by_subject(["Subject", *titles, against, f"x {BARE}"], rows)


def _closed_row(
    closed: Samples, subject: str, levels: Sequence[float], *, against: tuple[str | None, Samples]
) -> list[str]:
    cells = [subject]
    for level in levels:
        some = closed.where(subject=subject, level=level)
        cells.append(_measured(some, whole=len(closed.values("round"))) if some.all else "")
    best, last = against
    own = last.where(subject=subject).spread("rate").median
    for other in (best, BARE):
        base = last.where(subject=other)
        cells.append(f"{own / base.spread('rate').median:.2f}" if base.all and base.spread("rate").median else "")
    return cells


def _measured(some: Samples, *, whole: int) -> str:
    rate = some.spread("rate")
    once = "" if len(some.values("round")) == whole else "\\*"
    wrong = sum(each.refused + each.failed for each in some.all)
    note = f"; {wrong} not answered" if wrong else ""
    return f"{_spread(rate, 0 if rate.median >= 100 else 1)}; {some.spread('p99').median * 1e3:.2f}{note}{once}"


def _open_table(samples: Samples) -> Iterator[str]:
    """Latency at a constant rate, from when each request was due."""
    own = samples.where(load="open")
    if not own.all:
        return
    rows = []
    for subject in own.values("subject"):
        for level in sorted(float(str(each)) for each in own.where(subject=subject).values("level")):
            some = own.where(subject=subject, level=level)
            doubt = "" if all(each.trusted for each in some.all) else "the client was late itself"
            rows.append([str(subject), f"{level:.0f}", *_latencies(some), doubt])
    yield "Open loop, JSON, from when a request was due:\n"
    yield _by_subject(["Subject", "due/s", "answered/s", "p50 ms", "p99 ms", "not answered", "remark"], rows)


def _poisson_table(samples: Samples) -> Iterator[str]:
    """Goodput by offered rate, and at the best of them."""
    own = samples.where(load="poisson")
    if not own.all:
        return
    levels = sorted(float(str(each)) for each in own.values("level"))
    best = peaks(own)
    rows = []
    for subject in _ranked(best, "goodput"):
        cells = [_spread(own.where(subject=subject, level=level).spread("goodput"), 1) for level in levels]
        rows.append([subject, *cells, f"{best.where(subject=subject).spread('goodput').median:.1f}"])
    yield f"Poisson arrivals, 8 to 128 tokens, JSON; answered within {OBJECTIVE * 1e3:.0f} ms, a second:\n"
    yield _by_subject(["Subject", *[f"{level:g}/s due" for level in levels], "best"], rows)


def _latencies(some: Samples) -> list[str]:
    wrong = sum(each.refused + each.failed for each in some.all)
    p50, p99 = some.spread("p50"), some.spread("p99")
    spread = f"{p99.median * 1e3:.2f} ({p99.low * 1e3:.2f} to {p99.high * 1e3:.2f})"
    return [f"{some.spread('rate').median:.0f}", f"{p50.median * 1e3:.2f}", spread, str(wrong or "")]


def _ranked(samples: Samples, field: str = "rate") -> list[str]:
    """Subjects, the best first; openclaw where it belongs."""
    subjects = [str(each) for each in samples.values("subject")]
    return sorted(subjects, key=lambda each: -samples.where(subject=each).spread(field).median)


def _spread(spread: Spread, digits: int) -> str:
    median, low, high = (f"{each:,.{digits}f}" for each in (spread.median, spread.low, spread.high))
    return median if low == high else f"{median} ({low} to {high})"


def _by_subject(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of which each row begins with a subject; ours stands out."""
    return markdown.table(titles, ([f"**{row[0]}**", *row[1:]] if row[0] == OPENCLAW else row for row in rows))
