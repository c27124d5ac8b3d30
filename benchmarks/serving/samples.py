"""What a session measures, and how it is looked up afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.serving.figures import Spread, spread

Load = Literal["closed", "open", "poisson", "loop"]
LOOP = "bare onnxruntime loop"


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement in one round. Rates are requests a second, times seconds.

    Attributes:
        level: connections (closed), or the offered rate (open, poisson).
        rate: answered with 200.
        goodput: answered with 200 within the objective; poisson only.
        batch: rows that the server was told it may put together; 1: it was told of none.
        lag: p99 of how late the client itself was; open and poisson only.
    """

    round: int
    subject: str
    kind: str
    model: str
    encoding: str
    load: Load
    level: float
    rate: float
    p50: float
    p99: float
    refused: int = 0
    failed: int = 0
    goodput: float = 0.0
    lag: float = 0.0
    batch: int = 1

    @property
    def trusted(self) -> bool:
        """Whether its latencies are the server's and not the client's."""
        return not self.lag > 0.2 * self.p99


class Samples:
    """All of a session's."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.all: Sequence[Sample] = tuple(samples)

    def where(self, **wanted: object) -> Samples:
        """Those whose fields have these values."""
        return Samples(each for each in self.all if all(getattr(each, key) == value for key, value in wanted.items()))

    def values(self, field: str) -> list[object]:
        """The values that a field has, each once, in the order in which they first came."""
        return list(dict.fromkeys(getattr(each, field) for each in self.all))

    def spread(self, field: str) -> Spread:
        """Of a number over the rounds; of at least one sample."""
        return spread([float(getattr(each, field)) for each in self.all])

    def best(self, field: str) -> str | None:
        """The subject with the highest median of a field; None of nothing."""
        subjects = [str(each) for each in self.values("subject")]
        medians = {each: self.where(subject=each).spread(field).median for each in subjects}
        return max(medians, key=lambda each: medians[each]) if medians else None

    def ratio(self, field: str, above: str, below: str) -> Spread | None:
        """One subject's number through another's, round by round; None where no round has both."""
        pairs = []
        for number in self.values("round"):
            of = {each.subject: float(getattr(each, field)) for each in self.where(round=number).all}
            if of.get(below) and above in of:
                pairs.append(of[above] / of[below])
        return spread(pairs) if pairs else None
