"""What every candidate is held against: the exported model under onnxruntime's defaults, and its answers."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from openclaw.errors import InferenceFailed
from openclaw.optimizer.accuracy.budget import Budget, Verdict, default_budget
from openclaw.optimizer.accuracy.padding import without_padding
from openclaw.optimizer.calibration import Samples
from openclaw.optimizer.lossless import equal
from openclaw.optimizer.measuring.engine import Answer, Engine, open_engine
from openclaw.optimizer.measuring.feeds import Inputs, Shapes, guess_shapes, other_sizes, random_feed
from openclaw.optimizer.recipe import Feed

JUDGE_SECONDS = 5.0
"""What one pass of the exported model over the data that judges may take; beyond, a random part of it judges."""
JUDGE_FEEDS, CALIBRATION_FEEDS, TIMED_SHAPES = 16, 16, 3
HELD_OUT, RANDOM = "held-out data", "random inputs"


@dataclass(frozen=True)
class Judged:
    """Inputs with the exported model's answers to them."""

    feeds: Sequence[Feed]
    answers: Sequence[Answer]
    kind: str

    @property
    def samples(self) -> int:
        """Rows of the first axis, over all runs."""
        return sum(max((len(array) for array in feed.values() if array.ndim), default=1) for feed in self.feeds)


@dataclass(frozen=True)
class Bench:
    """Everything that stays the same while candidates come and go.

    Attributes:
        engine: the exported model.
        timed: feeds that make one pass of the timing.
        probes: random and real feeds on which lossless forms must give equal answers.
        judged: feeds on which lower precisions are judged, none of them used to make these; None: they are not tried.
        calibration: feeds for recipes.
        rehearsal: what :meth:`loss` judges recipes' attempts on; apart from ``judged``.
        budget: for lower precisions.
        threads: of every engine.
        seed: of all random choices.
    """

    engine: Engine
    timed: Sequence[Feed]
    probes: Judged
    judged: Judged | None
    calibration: Sequence[Feed]
    rehearsal: Judged | None
    budget: Budget | None
    threads: int
    seed: int

    def verdict(self, engine: Engine) -> Verdict:
        """Judges a form of lower precision on what was held out."""
        assert self.judged is not None
        return self._judge(engine, self.judged)

    def loss(self, model: onnx.ModelProto) -> float:
        """The ``Judge`` that recipes are given: the share of the budget that a form uses up on the calibration feeds.

        Metrics that only count are flat where nothing flips; a little of the difference itself tells forms apart there.
        """
        assert self.rehearsal is not None
        engine = open_engine(model, self.threads)
        answers = [engine.run(feed) for feed in self.rehearsal.feeds]
        assert self.budget is not None
        feeds = self.rehearsal.feeds
        verdict = self.budget.judge(self.rehearsal.answers, answers, feeds)
        if not verdict.values:
            return verdict.used
        from openclaw.optimizer.accuracy.metrics import cosine

        reference = without_padding(self.rehearsal.answers, feeds)
        return verdict.used + 0.1 * (1 - cosine(reference, without_padding(answers, feeds)))

    def _judge(self, engine: Engine, judged: Judged) -> Verdict:
        assert self.budget is not None
        return self.budget.judge(judged.answers, [engine.run(feed) for feed in judged.feeds], judged.feeds)

    def unequal(self, engine: Engine, *, lossless: bool) -> str | None:
        """Why a form cannot stand for the exported model: it fails, or gives other kinds of answers; or None.

        Args:
            engine: with the form.
            lossless: whether its answers must be equal, too.
        """
        from openclaw.optimizer.accuracy.budget import incomparable

        try:
            answers = [engine.run(feed) for feed in self.probes.feeds]
        except InferenceFailed as error:
            return str(error)
        if lossless:
            return equal(self.probes.answers, answers)
        named = [incomparable([a], [b]) for a, b in zip(self.probes.answers, answers, strict=True)]
        return next(filter(None, named), None)


def judged_on(engine: Engine, feeds: Sequence[Feed], kind: str) -> Judged:
    """The feeds with the engine's answers."""
    return Judged(feeds, [engine.run(feed) for feed in feeds], kind)


def shapes_of(feed: Feed) -> dict[str, list[int]]:
    """The shapes of a feed."""
    return {name: list(array.shape) for name, array in feed.items()}


def random_shapes(inputs: Inputs, given: Shapes, engine: Engine, *, samples: Samples | None, seed: int) -> Shapes:
    """Shapes for random feeds: the user's, else those of the first sample, else guessed."""
    if samples is not None and not given:
        first = samples.feeds(1)[0]
        return {name: tuple(array.shape) for name, array in first.items()}
    return guess_shapes(inputs, given, engine, seed=seed)


def timed_feeds(inputs: Inputs, shapes: Shapes, *, given: bool, samples: Samples | None, seed: int) -> list[Feed]:
    """One feed of the user's shapes; without these, one sample of every shape that the data has (at most three)."""
    if given or samples is None:
        return [random_feed(inputs, shapes, rng=np.random.default_rng(seed))]
    by_shape: dict[str, Feed] = {}
    for feed in samples.feeds(1):
        by_shape.setdefault(str(shapes_of(feed)), feed)
    return list(by_shape.values())[:TIMED_SHAPES]


def probe_feeds(inputs: Inputs, shapes: Shapes, engine: Engine, *, seed: int) -> list[Feed]:
    """Random feeds of usual, large and no size, and of other free dimensions where the exported model takes them."""
    rng = np.random.default_rng(seed + 1)
    feeds = [random_feed(inputs, shapes, rng=rng, scale=scale) for scale in (1.0, 20.0, 0.0)]
    larger = random_feed(inputs, other_sizes(inputs, shapes), rng=rng)
    try:
        engine.run(larger)
    except InferenceFailed:
        return feeds
    return [*feeds, larger]


def part_for(engine: Engine, feeds: Sequence[Feed], *, seed: int, seconds: float = JUDGE_SECONDS) -> list[Feed]:
    """All feeds, or as many at random as the engine runs within ``seconds``."""
    start = time.perf_counter()
    engine.run(feeds[0])
    most = max(1, int(seconds / max(time.perf_counter() - start, 1e-6)))
    return list(feeds) if len(feeds) <= most else random.Random(seed).sample(list(feeds), most)


def budget_for(stated: Budget | None, model: onnx.ModelProto, reference: Sequence[Answer]) -> Budget:
    """The user's budget, or the one that follows from the outputs."""
    return stated or default_budget(model, reference)
