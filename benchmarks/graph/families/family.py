"""What a family of models is: how it is built, what it is fed with, and how the answers of two forms are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from benchmarks.graph.families.drawing import Feed

Labels = tuple[Feed, npt.NDArray[np.int64]]

Metric = Literal["top1", "cosine", "max-abs", "overlap"]
"""How answers are compared, in the words of `openclaw optimize`: by the greatest score, by direction, by value, or by
the part of a dense output that is told alike."""


@dataclass(frozen=True, slots=True)
class Transformer:
    """What onnxruntime's optimizer for transformers is told: its name for the kind, heads and width."""

    name: str
    whole: tuple[int, int]
    small: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of model.

    Attributes:
        draw: builds it, whole or small.
        feed: inputs of one run: a generator, the batch and whether the model is small.
        batches: that are measured.
        real: whether its weights were trained, so that its accuracy says something.
        calibration: feeds for choosing scales, and held-out ones, where random ones say nothing; small or whole.
        labels: data with the right answers, as argmax of the first output; never trained on.
        transformer: what onnxruntime's own optimizer is told, if it is one.
    """

    name: str
    title: str
    draw: Callable[[bool], onnx.ModelProto]
    feed: Callable[[np.random.Generator, int, bool], Feed]
    metric: Metric
    batches: tuple[int, ...] = (1,)
    real: bool = False
    calibration: Callable[[bool], tuple[Sequence[Feed], Sequence[Feed]]] | None = None
    labels: Callable[[], Labels] | None = None
    transformer: Transformer | None = None

    def build(self, *, small: bool = False) -> onnx.ModelProto:
        """The model as an exporter would give it; `small` keeps the structure and drops the size."""
        return self.draw(small)

    def feeds(self, batch: int, *, seed: int = 0, count: int = 1, small: bool = False) -> list[Feed]:
        """Inputs of `count` runs."""
        random = np.random.default_rng(seed)
        return [self.feed(random, batch, small) for _ in range(count)]
