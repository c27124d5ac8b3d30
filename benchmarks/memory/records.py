"""What the benchmark of memory measures, as it is kept in JSON. Sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.records import Origin, Record
from benchmarks.targets import Verdict
from pydantic import Field


class Held(Record):
    """Activations: the arena's figures in onnxruntime's own profile, without weights.

    Attributes:
        held: the most that it held in the last of some runs.
        most: the most in any of them.
        in_use: the most that was in use at once.
        outside: outputs of a batch that were put together outside of the arena, as it was run a few rows at a time.
            Where it is run at once they are part of the three.
    """

    held: int
    most: int
    in_use: int
    outside: int = 0

    @property
    def whole(self) -> int:
        """What is held of activations and outputs, whatever it lies in."""
        return self.held + self.outside


class Measured(Record):
    """One case with one engine: by round seconds of a run and what the process took, each in a process of its own.

    Attributes:
        way: in which activations are held.
        pss: proportional set size after the runs.
        peak: the most that was resident.
        group_peak: the most that the process's control group had, from its first instruction to its last; only where
            there was one.
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


class Lowered(Record):
    """What the optimizer kept where it might lower the precision.

    Attributes:
        recipe: that made the form; None: it kept the exported model.
        precision: of the form; fp32 also of the exported one.
        budget: that the accuracy guard held lower precisions to.
        accuracy: of the form, by metric; nothing of forms that cost none.
        judged_on: what.
        refused: the recipe of lower precision that came nearest, and why it was refused, where none was kept.
    """

    recipe: str | None
    precision: str
    budget: str | None = None
    accuracy: Mapping[str, float] = Field(default_factory=dict)
    judged_on: str | None = None
    refused: str | None = None


class Turns(Record):
    """Seconds of a run of an engine, and of the default in the same rounds, all in one process."""

    mine: tuple[float, ...]
    default: tuple[float, ...]


class Case(Record):
    """A model at one batch.

    Attributes:
        lower: the form of lower precision.
        measured: by name of an engine.
        turns: each engine against the default, by its name.
    """

    title: str
    batch: int
    origin: Origin
    plan: Planned
    lower: Lowered
    measured: Mapping[str, Measured]
    turns: Mapping[str, Turns]


class Planning(Record):
    """The planner alone: random sets of lifetimes, a large one, and a graph with as many tensors.

    Attributes:
        fragmentation: of each random set.
        tensors: of the large set and the graph.
        seconds: that placing the large set took, several times.
        graph_seconds: that a plan of the graph took from its steps: lifetimes, order of execution, and places.
    """

    origin: Origin
    fragmentation: tuple[float, ...]
    tensors: int
    seconds: tuple[float, ...]
    graph_seconds: tuple[float, ...]


class Results(Record):
    """All of it; cases may come from several runs.

    Attributes:
        machine: of the last run, with its commit and date.
        small: the models were small ones: nothing follows for the targets.
        verdicts: of what is here, for who reads it without this benchmark.
    """

    machine: Mapping[str, str | float]
    threads: int
    small: bool = False
    cases: Mapping[str, Case] = Field(default_factory=dict)
    planning: Planning | None = None
    left_out: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()

    @property
    def commit(self) -> str:
        """Of the last run."""
        return str(self.machine.get("commit", ""))

    def joined(self, earlier: Results) -> Results:
        """With what an earlier run measured and this one did not; nothing of an earlier one with other models."""
        if earlier.small != self.small:
            return self
        return self.model_copy(
            update={"cases": {**earlier.cases, **self.cases}, "planning": self.planning or earlier.planning}
        )
