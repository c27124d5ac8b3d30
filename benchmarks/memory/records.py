"""What the benchmark of memory measures, as it is kept in JSON. Sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.records import Origin, Record
from pydantic import Field


class Held(Record):
    """The arena's figures in onnxruntime's own profile, without weights: the most that it held in the last of some
    runs, the most in any of them, and the most that was in use at once.
    """

    held: int
    most: int
    in_use: int


class Measured(Record):
    """One case with one engine: by round seconds of a run and what the process took, each in a process of its own.

    Attributes:
        way: in which activations are held.
        pss: proportional set size after the runs.
        peak: the most that was resident.
        group_peak: the most that the process's control group had; only where there was one.
    """

    way: str
    arena: Held
    seconds: tuple[float, ...]
    pss: tuple[int, ...]
    peak: tuple[int, ...]
    group_peak: tuple[int, ...] = ()


class Planned(Record):
    """The plan of the exported graph."""

    arena: int
    lower_bound: int
    fragmentation: float


class Case(Record):
    """A model at one batch.

    Attributes:
        lower: the recipe of the form of lower precision; None: the optimizer kept the exported one.
        measured: by name of an engine.
        turns: seconds of a run, all by turns in one process; rounds are the same ones for all.
    """

    title: str
    batch: int
    origin: Origin
    plan: Planned
    lower: str | None
    measured: Mapping[str, Measured]
    turns: Mapping[str, tuple[float, ...]]


class Planning(Record):
    """The planner alone: random sets of lifetimes, and a large one.

    Attributes:
        fragmentation: of each random set.
        tensors: of the large set, and ``seconds`` that its plan took, several times.
    """

    origin: Origin
    fragmentation: tuple[float, ...]
    tensors: int
    seconds: tuple[float, ...]


class Results(Record):
    """All of it; cases may come from several runs."""

    machine: Mapping[str, str | float]
    threads: int
    cases: Mapping[str, Case] = Field(default_factory=dict)
    planning: Planning | None = None
    left_out: tuple[str, ...] = ()

    def joined(self, earlier: Results) -> Results:
        """With what an earlier run measured and this one did not."""
        return self.model_copy(
            update={"cases": {**earlier.cases, **self.cases}, "planning": self.planning or earlier.planning}
        )
