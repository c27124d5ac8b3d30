"""Measures one family at a time: optimizes it, times its forms by turns, and compares their answers."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from benchmarks.graph import nodes
from benchmarks.graph.families.drawing import Feed
from benchmarks.graph.families.family import Family
from benchmarks.graph.records import DEFAULT, FP32, INT8, Case, FamilyRecord, Optimized, RowRecord, Tried
from benchmarks.graph.rows import Row
from benchmarks.records import Origin

from openclaw.errors import OpenClawError
from openclaw.execute.engines import installed
from openclaw.memory.properties import memory_of
from openclaw.optimizer.accuracy import metrics
from openclaw.optimizer.measuring.engine import Answer, Engine, open_engine
from openclaw.optimizer.measuring.timing import Plan, compare
from openclaw.optimizer.optimize import optimize

BUDGETS = {"minilm": "cosine>=0.99,cosine-worst>=0.98", "digits": "top1>=0.998"}
"""The issue's own; random weights agree as they may, and are only reported."""
ANY = "cosine>=0"
ROUNDS = 41
"""Short ones, by turns: what else a machine does is spread over all forms alike."""
_LIMIT, _LIMIT_LOSSLESS, _LIMIT_WITHOUT_TARGET = 100.0, 60.0, 40.0
"""Seconds of one optimization, so that all of it ends in its time."""
_WHOLE_FRONTIER = ("minilm",)  # whose recipes are all tried, however long that takes
_CALIBRATION, _HELD_OUT = 32, 32  # random feeds, where there is nothing better
_SEED_OF_HELD_OUT = 1_000


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is spent.

    Attributes:
        rounds: of timing.
        seconds: after which no further round of one case begins, five done.
        small: models of a few kilobytes: whether all works.
        only: recipes to try beside the lossless ones; all if empty.
    """

    rounds: int = ROUNDS
    seconds: float = 25.0
    small: bool = False
    only: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        """For the clock."""
        least = min(5, self.rounds)
        return Plan(rounds=self.rounds, least=least, slice_seconds=0.05 if self.small else 0.1, seconds=self.seconds)


@dataclass(slots=True)
class Session:
    """What all measurements of a run share."""

    effort: Effort
    threads: int
    origin: Origin
    say: Callable[[str], None]

    def family(self, family: Family) -> FamilyRecord:
        """All of one family."""
        small = self.effort.small
        began = time.perf_counter()
        self.say(f"{family.name}: building")
        model = family.build(small=small)
        calibration, held_out = data(family, small=small)
        counted = nodes.ways(family, model, family.feeds(1, small=small)[0], small=small, threads=self.threads)
        forms: dict[str, tuple[onnx.ModelProto, Optimized]] = {}
        errors: dict[str, str] = {}
        for form in (FP32, INT8):
            self.say(f"{family.name}: optimizing, {form}")
            try:
                forms[form] = self._optimized(family, model, form=form, calibration=calibration, held_out=held_out)
            except OpenClawError as error:
                errors[form] = str(error)
                self.say(f"{family.name}: {form}: {error}")
        engines = {DEFAULT: open_engine(model, self.threads)}
        engines |= {form: shipped(made, self.threads) for form, (made, _) in forms.items()}
        cases = [self._case(family, engines, batch) for batch in family.batches]
        self.say(f"{family.name}: {time.perf_counter() - began:.0f} s")
        return FamilyRecord(
            name=family.name,
            title=family.title,
            real=family.real,
            metric=family.metric,
            origin=self.origin,
            bytes=model.ByteSize(),
            nodes=counted,
            cases=tuple(cases),
            forms={form: told for form, (_, told) in forms.items()},
            labels=labelled(family, engines[DEFAULT]),
            errors=errors,
        )

    def _optimized(
        self,
        family: Family,
        model: onnx.ModelProto,
        *,
        form: str,
        calibration: Sequence[Feed],
        held_out: Sequence[Feed],
    ) -> tuple[onnx.ModelProto, Optimized]:
        feed = family.feeds(1, small=self.effort.small)[0]
        shapes = {name: array.shape for name, array in feed.items()}
        with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as folder:
            if form == FP32:
                arguments: dict[str, object] = {"precision": "fp32"}
            else:
                arguments = {
                    "precision": "auto" if family.real else "int8",
                    "calibration": written(calibration, Path(folder)),
                    "accuracy_budget": BUDGETS.get(family.name, ANY) if not self.effort.small else ANY,
                    "only": self.effort.only,
                }
            arguments["time_limit"] = self._limit(family, form)
            # How activations are held is chosen for the batches that are measured.
            arguments["max_batch_size"] = max(family.batches)
            result = optimize(model, shapes=shapes, threads=self.threads, **arguments)  # type: ignore[arg-type]  # the dictionary above
        engine = shipped(result.model, self.threads)
        report = result.report
        return result.model, Optimized(
            kept=report.kept,
            seconds=report.seconds,
            bytes=result.model.ByteSize(),
            nodes=nodes.count(result.model),
            loaded=nodes.loaded(result.model),
            agreement=agreement(open_engine(model, self.threads), engine, held_out),
            labels=labelled(family, engine),
            tried=tuple(
                Tried(
                    name=each.name,
                    precision=each.precision,
                    outcome=each.outcome,
                    reason=each.reason,
                    ratio=each.ratio.median if each.ratio else None,
                    rounds=each.ratio.rounds if each.ratio else None,
                    bytes=each.form.bytes if each.form else None,
                    accuracy=each.accuracy.values if each.accuracy else {},
                )
                for each in report.candidates
            ),
        )

    def _limit(self, family: Family, form: str) -> float:
        """Seconds of one optimization."""
        if family.name in _WHOLE_FRONTIER and form == INT8 and not self.effort.small:
            return math.inf
        if len(family.batches) == 1:
            return _LIMIT_WITHOUT_TARGET
        return _LIMIT if form == INT8 else _LIMIT_LOSSLESS

    def _case(self, family: Family, engines: Mapping[str, Engine], batch: int) -> Case:
        self.say(f"{family.name}: timing {', '.join(engines)} by turns, batch {batch}")
        feeds = family.feeds(batch, small=self.effort.small)
        return Case(batch=batch, seconds=timed(engines, feeds, self.effort.plan))

    def row(self, row: Row) -> RowRecord:
        """A row of the table of gaps, alone; with activations as onnxruntime holds them, as it is about the row."""
        self.say(f"row {row.name}")
        model = row.build()
        there = [engine for engine in row.engines if engine in installed()]
        result = optimize(model, precision="fp32", threads=self.threads, engines=there, memory="default")
        shapes = result.report.shapes[0] if result.report.shapes else {}
        feed = drawn(model, shapes)
        engines = {DEFAULT: open_engine(model, self.threads), FP32: shipped(result.model, self.threads)}
        answers = [[engine.run(feed)] for engine in engines.values()]
        return RowRecord(
            name=row.name,
            pattern=row.pattern,
            origin=self.origin,
            nodes={"exported": nodes.count(model), FP32: nodes.count(result.model)},
            case=Case(batch=1, seconds=timed(engines, [feed], self.effort.plan)),
            kept=result.report.kept,
            relative=metrics.relative(*answers),
        )


def shipped(model: onnx.ModelProto, threads: int) -> Engine:
    """A form as it is served: on the engine and in the memory that its properties name."""
    properties = {each.key: each.value for each in model.metadata_props}
    return open_engine(model, threads, memory=memory_of(properties, source=model.graph.name))


def timed(engines: Mapping[str, Engine], feeds: Sequence[Feed], plan: Plan) -> dict[str, tuple[float, ...]]:
    """Seconds of a run of each form, by turns: one figure a round."""
    return {form: tuple(rounds) for form, rounds in compare(engines, feeds, plan=plan, seed=0).items()}


def data(family: Family, *, small: bool) -> tuple[Sequence[Feed], Sequence[Feed]]:
    """Feeds to calibrate on, and held-out ones that the optimizer never sees."""
    if family.calibration is not None:
        return family.calibration(small)
    held_out = family.feeds(1, count=_HELD_OUT, seed=_SEED_OF_HELD_OUT, small=small)
    return family.feeds(1, count=_CALIBRATION, small=small), held_out


def written(feeds: Sequence[Feed], folder: Path) -> Path:
    """Feeds as the folder that `--calibration` takes."""
    for number, feed in enumerate(feeds):
        np.savez(folder / f"{number:04}.npz", allow_pickle=False, **feed)
    return folder


def agreement(reference: Engine, candidate: Engine, feeds: Sequence[Feed]) -> dict[str, float]:
    """All metrics, of the same inputs through both."""
    answers: list[list[Answer]] = [[engine.run(feed) for feed in feeds] for engine in (reference, candidate)]
    names = ("top1", "cosine", "cosine-worst", "max-abs", "relative", "overlap")
    return {name: metrics.METRICS[name](*answers) for name in names}


def labelled(family: Family, engine: Engine) -> float | None:
    """Top-1 accuracy on labelled data."""
    if family.labels is None:
        return None
    feed, wanted = family.labels()
    first = next(iter(engine.run(feed).values()))
    return float(np.mean(np.argmax(first, axis=-1) == wanted))


def drawn(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> Feed:
    """Random inputs of these shapes, by the datatypes of the model."""
    random = np.random.default_rng(0)
    weights = {each.name for each in model.graph.initializer}
    feed: Feed = {}
    for each in model.graph.input:
        if each.name in weights:
            continue
        kind = each.type.tensor_type
        shape = shapes.get(each.name) or [size.dim_value or 1 for size in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        values = random.standard_normal(shape) if dtype.kind == "f" else random.integers(0, 2, shape)
        feed[each.name] = np.asarray(values, dtype)
    return feed
