"""What came of optimizing a model before it is served: few enough words for a container's termination message.

The operator reads them from there and shows them in the status of the service; the names are a contract with it.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from openclaw.optimizer.results.report import Candidate, Machine, Report

REASON_LENGTH = 500
"""Characters of a reason; with it all stays below the 4096 bytes that a kubelet keeps, however they are escaped."""

_LEADING = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "avx", "i8mm", "dotprod", "neon")
"""What decides most about which forms are fast, the best first."""

Outcome = Literal["Optimized", "NothingFaster", "Failed"]


class Summary(BaseModel):
    """One optimization.

    Attributes:
        mode: what was asked for: ``fp32`` or ``auto``.
        outcome: ``Optimized``: a faster form is served; ``NothingFaster``: the model as it is, for nothing is faster;
            ``Failed``: the model as it is, since it could not be optimized.
        node_type: the kind of machine that it holds for.
        form: the recipe that was kept.
        precision: of that form.
        latency_percent: of one inference, in percent of onnxruntime's default on the model as it was.
        accuracy: of a form of lower precision, on what it was judged by.
        nodes_before, nodes_after: operators in the graph.
        size_percent: of the file, in percent of the model's as it was.
        cached: whether the result was there already.
        reason: why it is so, in a sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    mode: str
    outcome: Outcome
    node_type: str = Field(max_length=200)
    form: str | None = None
    precision: str | None = None
    latency_percent: int | None = None
    accuracy: str | None = Field(default=None, max_length=200)
    nodes_before: int | None = None
    nodes_after: int | None = None
    size_percent: int | None = None
    cached: bool = False
    reason: str = Field(default="", max_length=REASON_LENGTH)

    def line(self) -> str:
        """As it stands in a termination message: one line of JSON."""
        return f'{{"optimization": {self.model_dump_json(by_alias=True, exclude_none=True)}}}'


def node_type(machine: Machine) -> str:
    """What one machine has in common with others that a result holds for, as people call it."""
    leading = next((name for name in _LEADING if name in machine.instructions), None)
    threads = f"{machine.threads} thread" if machine.threads == 1 else f"{machine.threads} threads"
    return ", ".join(filter(None, [machine.processor[:150], leading, threads]))


def summary_of(report: Report, mode: str) -> Summary:
    """What a report comes to."""
    kept = next((each for each in report.candidates if each.name == report.kept), None)
    base = Summary(
        mode=mode,
        outcome="NothingFaster",
        node_type=node_type(report.machine),
        cached=report.cached,
        reason=shortened(report.verdict),
    )
    if kept is None:
        return base
    return base.model_copy(
        update={
            "outcome": "Optimized",
            "form": kept.name,
            "precision": kept.precision,
            "latency_percent": _percent(kept.ratio.median) if kept.ratio else None,
            "accuracy": _accuracy(kept),
            "nodes_before": report.exported.nodes,
            "nodes_after": report.result.nodes,
            "size_percent": _percent(report.result.bytes / max(report.exported.bytes, 1)),
        }
    )


def failed(reason: str, mode: str, machine: Machine) -> Summary:
    """The model is served as it is, and why."""
    return Summary(mode=mode, outcome="Failed", node_type=node_type(machine), reason=shortened(reason))


def shortened(sentence: str) -> str:
    """On one line, and no longer than a reason may be."""
    text = " ".join(sentence.split())
    return text if len(text) <= REASON_LENGTH else text[: REASON_LENGTH - 1] + "…"


def _percent(ratio: float) -> int | None:
    return round(100 * ratio) if math.isfinite(ratio) else None


def _accuracy(kept: Candidate) -> str | None:
    if kept.accuracy is None:
        return None
    return ", ".join(f"{name} {value:.4f}" for name, value in kept.accuracy.values.items())[:200]
