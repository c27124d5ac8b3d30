"""What an optimization found, for people and machines: every candidate, and why it was kept or refused."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", protected_namespaces=())


class Form(_Part):
    """A form of the model: what identifies it, and how large it is."""

    sha256: str
    bytes: int
    nodes: int


class Latency(_Part):
    """Seconds of one run: the median of the rounds and their quartiles."""

    median_seconds: float
    first_quartile_seconds: float
    third_quartile_seconds: float
    rounds: int


class Comparison(_Part):
    """Latency over the baseline's in the same rounds: median, and bounds at ``confidence``, each one-sided."""

    median: float
    lower: float
    upper: float
    confidence: float
    rounds: int


class Accuracy(_Part):
    """How near the answers are to the exported model's.

    Attributes:
        values: by metric.
        budget_used: share of what the budget allows; above 1 it is broken.
        judged_on: where the inputs came from.
        samples: how many of them.
    """

    values: dict[str, float]
    budget_used: float
    judged_on: str
    samples: int


class Candidate(_Part):
    """One way that was tried.

    Attributes:
        name: of the recipe.
        precision: of its arithmetic.
        engine: what it ran on.
        outcome: what became of it.
        reason: why, in a sentence.
        form: what it made, if it came so far.
        latency, ratio: of the final if it came so far, else of its heat.
        accuracy: of lower precisions that were judged.
        notes: what the recipe did.
        seconds: what trying it took.
    """

    name: str
    precision: str
    engine: str = "onnxruntime"
    outcome: Literal["kept", "refused", "not applicable"]
    reason: str
    form: Form | None = None
    latency: Latency | None = None
    ratio: Comparison | None = None
    accuracy: Accuracy | None = None
    notes: dict[str, object] = Field(default_factory=dict)
    seconds: float = 0.0


class Holding(_Part):
    """One way to hold activations that was timed.

    Attributes:
        name: of the arena, and rows at a time.
        arena: its settings, as the model's property has them; None: onnxruntime's own.
        rows: that are run at once; None: all.
        held_bytes: what the arena held of activations, in each case; none where the rows alone were too slow.
        ratios: latency through the default's, in each case; fewer, where it was too slow in the largest.
        outcome, reason: what became of it, and why.
    """

    name: str
    arena: str | None = None
    rows: int | None = None
    held_bytes: list[int]
    ratios: list[float]
    outcome: Literal["kept", "refused"]
    reason: str


class MemoryChoice(_Part):
    """How activations are held.

    Attributes:
        asked: ``auto`` or ``least``.
        kept: name of the way.
        verdict: the outcome in a sentence.
        shapes: of the inputs of each case, by rising size.
        default_held_bytes: what onnxruntime's own arena held, in each case.
        ways: that were timed.
    """

    asked: str
    kept: str
    verdict: str
    shapes: list[dict[str, list[int]]]
    default_held_bytes: list[int]
    ways: list[Holding] = Field(default_factory=list)


class Machine(_Part):
    """Where it was measured."""

    processor: str
    instructions: list[str]
    cores: float
    threads: int
    system: str


class Report(_Part):
    """The whole of one optimization.

    Attributes:
        format: of this document.
        source: the model's name as messages call it.
        exported, result: the model before and after.
        kept: name of the candidate that the result is; None: the exported model.
        verdict: the outcome in a sentence.
        untouched: why the model was passed through as it is, or None.
        baseline: onnxruntime's default on the exported model, in the rounds of the final.
        budget: the accuracy that was asked of lower precisions, and ``judged_on`` what.
        shapes: of the inputs that were timed; one mapping for every run of a pass.
        memory: how activations are held; None: as onnxruntime does, and nothing was measured.
        notes: what a reader should know beside.
        seconds: what the optimization took; ``cached``: it was found in the cache.
    """

    format: Literal[1] = 1
    source: str
    exported: Form
    result: Form
    kept: str | None = None
    verdict: str
    untouched: str | None = None
    baseline: Latency | None = None
    candidates: list[Candidate] = Field(default_factory=list)
    budget: str | None = None
    judged_on: str | None = None
    target_latency_seconds: float | None = None
    shapes: list[dict[str, list[int]]] = Field(default_factory=list)
    memory: MemoryChoice | None = None
    notes: list[str] = Field(default_factory=list)
    machine: Machine
    versions: dict[str, str]
    seed: int
    seconds: float
    cached: bool = False

    @property
    def changed(self) -> bool:
        """Whether the result is another file than the exported model."""
        return self.result != self.exported
