"""What the benchmark of the optimizer measures, as it is kept in JSON."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.records import Origin, Record
from pydantic import Field

DEFAULT, FP32, INT8 = "default", "fp32", "int8"
"""The forms that are timed: onnxruntime's default on the exported model, ours without loss, and ours with lower
precision, which is whatever it chose where weights are real."""


class Case(Record):
    """Latencies at one batch: by form, seconds of a run, one figure a round; rounds are the same ones for all."""

    batch: int
    seconds: Mapping[str, tuple[float, ...]]


class Tried(Record):
    """A candidate of the optimizer's report.

    Attributes:
        ratio: of its latency to the default's, by turns: in the final's rounds if it came so far, else in its heat's.
        rounds: how many these were.
    """

    name: str
    precision: str
    outcome: str
    reason: str
    ratio: float | None = None
    rounds: int | None = None
    bytes: int | None = None
    accuracy: Mapping[str, float] = Field(default_factory=dict)


class Optimized(Record):
    """What an optimization gave.

    Attributes:
        kept: the candidate's name; None: the exported model.
        seconds: that it took.
        bytes: of the result.
        nodes: of the result's main graph and those inside it, and ``loaded`` how many onnxruntime then runs.
        agreement: with the exported model's answers on inputs that the optimizer never saw, by metric.
        labels: top-1 accuracy on labelled data, where there is such.
    """

    kept: str | None
    seconds: float
    bytes: int
    nodes: int
    loaded: int
    agreement: Mapping[str, float]
    labels: float | None = None
    tried: tuple[Tried, ...] = ()


class FamilyRecord(Record):
    """One family.

    Attributes:
        nodes: ``exported``, and what each of onnxruntime's own ways leaves of it.
        labels: top-1 accuracy of the exported model.
        errors: by form, why it is not there.
    """

    name: str
    title: str
    real: bool
    metric: str
    origin: Origin
    bytes: int
    nodes: Mapping[str, int]
    cases: tuple[Case, ...]
    forms: Mapping[str, Optimized]
    labels: float | None = None
    errors: Mapping[str, str] = Field(default_factory=dict)


class RowRecord(Record):
    """One row of the table of gaps: a model in which the pattern stands alone."""

    name: str
    pattern: str
    origin: Origin
    nodes: Mapping[str, int]
    case: Case
    kept: str | None
    relative: float


class Stream(Record):
    """Frames through a process of its own: rate, and the most memory it ever had."""

    frames_per_second: tuple[float, ...]
    peak_bytes: tuple[int, ...]


class Throughput(Record):
    """ResNet50 as a stream.

    Attributes:
        single: unoptimized fp32, frame by frame.
        batched: unoptimized fp32, as many frames at once.
        ours: INT8, as many frames at once, the next ones made meanwhile.
        runs: the form that ours is, with the engine and the memory that its file names.
    """

    origin: Origin
    batch: int
    single: Stream
    batched: Stream
    ours: Stream
    runs: str


class Effort(Record):
    """Seconds that optimizing ResNet50 takes with all that is tried by default.

    Attributes:
        first: with an empty cache.
        cached: the same call again, answered from the cache.
        command: the same as a command in a process of its own, answered from this cache.
    """

    origin: Origin
    first: float
    cached: float
    command: float


class Results(Record):
    """All of it; parts may come from several runs."""

    machine: Mapping[str, str | float]
    threads: int
    families: Mapping[str, FamilyRecord] = Field(default_factory=dict)
    rows: Mapping[str, RowRecord] = Field(default_factory=dict)
    throughput: Throughput | None = None
    effort: Effort | None = None
    left_out: tuple[str, ...] = ()

    def origins(self) -> Mapping[str, Origin]:
        """By part, which code it was measured with, and when."""
        found = {name: family.origin for name, family in self.families.items()}
        found |= {f"row {name}": row.origin for name, row in self.rows.items()}
        if self.throughput is not None:
            found["stream"] = self.throughput.origin
        if self.effort is not None:
            found["effort"] = self.effort.origin
        return found

    def joined(self, earlier: Results) -> Results:
        """With what an earlier run measured and this one did not."""
        return self.model_copy(
            update={
                "families": {**earlier.families, **self.families},
                "rows": {**earlier.rows, **self.rows},
                "throughput": self.throughput or earlier.throughput,
                "effort": self.effort or earlier.effort,
            }
        )
