"""What a benchmark sets out to reach, beside what was measured. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks import markdown

NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target; `holds` is None where it was not measured, or where nothing is asked for."""

    target: str
    measured: str
    holds: bool | None


def table(verdicts: Iterable[Verdict]) -> str:
    """All of them in Markdown."""
    rows = [[each.target, each.measured, shown(each.holds)] for each in verdicts]
    return markdown.table(["Target", "Measured", "Holds"], rows)


def shown(holds: bool | None) -> str:
    """As tables have it."""
    return "" if holds is None else "yes" if holds else "**no**"
