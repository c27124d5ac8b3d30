"""One optimization, from a verified source to a result: what is tried, in which order, and what is kept."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from openclaw.errors import ConfigInvalid, InferenceFailed, ModelInvalid
from openclaw.optimizer import calibration as data
from openclaw.optimizer import candidates, engines
from openclaw.optimizer.lossless import PLAIN, equal, proven
from openclaw.optimizer.measuring import bench, feeds, trial
from openclaw.optimizer.measuring.bench import Bench
from openclaw.optimizer.measuring.engine import Engine, brief, open_engine, open_session
from openclaw.optimizer.measuring.selection import choose
from openclaw.optimizer.measuring.trial import Outcome, Trial
from openclaw.optimizer.memory.applying import with_memory
from openclaw.optimizer.model import source as sources
from openclaw.optimizer.model.contents import count_nodes
from openclaw.optimizer.progress import Watcher
from openclaw.optimizer.recipe import Feed, Material, Recipe
from openclaw.optimizer.results.report import Form, Report
from openclaw.optimizer.results.result import Result
from openclaw.optimizer.task import Task

FINALISTS = 3
"""Candidates of lower precision that come to the final, beside those that cost no accuracy."""
TRYING = 0.65
"""The part of the time limit in which recipes are begun."""
AT_ONCE = 0.02
"""The part of the time limit in which a recipe that does not fit the model has told so."""
SEARCHING = 0.8
"""The part of the time limit in which recipes look for layers to leave in float."""
REMEMBERING = 0.08
"""The part of the time limit that choosing how activations are held has in any case."""


class Run:
    """One task; :meth:`result` does it."""

    def __init__(self, task: Task, *, watcher: Watcher, start: float) -> None:
        """``start``: when the time limit began, by ``time.perf_counter``: reading the model is part of it.

        Raises:
            ConfigInvalid: an engine that was asked for is not installed.
        """
        self._source, self._options, self._machine = task.source, task.options, task.machine
        self._versions, self._watcher = task.versions, watcher
        self._engines = engines.chosen(task.options.engines, precision=task.options.precision)
        self._notes: list[str] = []
        if task.options.fix_shapes and task.source.untouched is None:
            told = ", ".join(f"{name} {list(sizes)}" for name, sizes in (task.options.shapes or {}).items())
            self._notes.append(f"The result takes these shapes alone, and is held against the model with them: {told}.")
        self._start = start

    def result(self) -> Result:
        """Runs it; raises as ``optimize``."""
        self._watcher.now("loading the model")
        session = self._opened()
        reason = self._source.untouched or next(sources.untouchable(self._source.model), None) or self._breaks()
        if reason is not None:
            return self._untouched(reason)
        options = self._options
        recipes = candidates.wanted(candidates.all_recipes(), options.precision, options.only, engines=options.engines)
        prepared = self._prepared(Engine(session))
        if isinstance(prepared, str):
            return self._untouched(prepared)
        with tempfile.TemporaryDirectory(prefix="openclaw-optimize-") as folder:
            return self._tried(recipes, prepared, Path(folder))

    def _opened(self) -> Any:
        given = self._source.path if self._source.untouched and self._source.path else self._source.model
        try:
            return open_session(given, self._machine.threads)
        except ModelInvalid as error:
            raise ModelInvalid(f"{self._source.name}: {error}") from error

    def _breaks(self) -> str | None:
        """Exporters break rules that onnxruntime does not mind; what is made from such a model could not be checked."""
        try:
            sources.check_source(self._source)
        except ModelInvalid as error:
            return str(error)
        return None

    def _prepared(self, engine: Engine) -> Bench | str:
        """The bench; or why no form of this model can be held against another."""
        options, model = self._options, self._source.model
        inputs = feeds.Inputs.of(model, engine.signature)
        given = feeds.check_shapes(options.shapes or {}, engine.signature)
        samples = self._samples()
        parts = None if samples is None else data.split(samples, seed=options.seed)
        held_out = None if parts is None else parts[1]
        shapes = bench.random_shapes(inputs, given, engine, samples=held_out, seed=options.seed)
        probes = bench.probe_feeds(inputs, shapes, engine, seed=options.seed)
        if held_out is not None:
            probes += held_out.feeds(1)[:4]
        try:
            known = bench.judged_on(engine, probes, bench.RANDOM)
            if (reason := equal(known.answers, [engine.run(feed) for feed in probes])) is not None:
                return f"it gives different answers to the same inputs ({reason}), so no form of it can be compared"
        except InferenceFailed as error:
            raise ConfigInvalid(f"{self._source.name}: {error}; see shapes and calibration") from error
        timed = bench.timed_feeds(inputs, shapes, given=bool(given), samples=held_out, seed=options.seed)
        base = Bench(engine, timed, known, None, (), None, None, self._machine.threads, options.seed)
        return self._judging(base, inputs, shapes=shapes, parts=parts)

    def _samples(self) -> data.Samples | None:
        given = self._options.calibration
        if given is None:
            return None
        if isinstance(given, Path):
            return data.read(given, self._source.model)
        return data.from_arrays([given], self._source.model)

    def _judging(
        self,
        base: Bench,
        inputs: feeds.Inputs,
        *,
        shapes: feeds.Shapes,
        parts: tuple[data.Samples, data.Samples] | None,
    ) -> Bench:
        """The bench with what lower precisions are made from and judged on, if they are to be tried."""
        options, engine = self._options, base.engine
        if options.precision == "fp32" or (parts is None and not options.asked):
            if options.precision == "auto":
                self._notes.append(candidates.NO_DATA)
            return base
        calibration: Sequence[Feed]
        if parts is not None:
            calibration, kind = parts[0].feeds(), bench.HELD_OUT
            rehearsed, judging = calibration, parts[1].feeds()
        else:
            self._notes.append(
                "No calibration data was given: lower precisions were judged on random inputs, which say little of "
                "real ones. Give data before you rely on it."
            )
            rng = np.random.default_rng(options.seed + 2)
            calibration, kind = (), bench.RANDOM
            rehearsed = [feeds.random_feed(inputs, shapes, rng=rng) for _ in range(bench.CALIBRATION_FEEDS)]
            judging = [feeds.random_feed(inputs, shapes, rng=rng) for _ in range(bench.JUDGE_FEEDS)]
        judged = bench.judged_on(engine, bench.part_for(engine, judging, seed=options.seed), kind)
        rehearsal = bench.judged_on(
            engine, bench.part_for(engine, rehearsed[: bench.CALIBRATION_FEEDS], seed=options.seed), "calibration"
        )
        budget = bench.budget_for(options.budget, self._source.model, judged.answers)
        return replace(base, judged=judged, calibration=calibration, rehearsal=rehearsal, budget=budget)

    def _tried(self, recipes: Sequence[Recipe], base: Bench, folder: Path) -> Result:
        material = self._material(base, folder)
        trials: list[Trial] = []
        self._try(recipes, material, base=base, trials=trials)
        for engine in self._engines:
            forms = tuple(engines.recipes(engine, self._source.model, trials))
            self._try(forms, material, base=base, trials=trials)
        return self._held(self._selected(trials, base), base)

    def _held(self, result: Result, base: Bench) -> Result:
        """The result in the memory that suits it."""
        self._watcher.now("measuring memory")
        now, limit = time.perf_counter(), self._options.time_limit
        least = now + (120.0 if math.isinf(limit) else REMEMBERING * limit)
        ends = least if math.isinf(limit) else max(least, self._start + limit)
        inputs = feeds.Inputs.of(self._source.model, base.engine.signature)
        return with_memory(result, inputs, base.timed, options=self._options, threads=self._machine.threads, ends=ends)

    def _try(self, recipes: Sequence[Recipe], material: Material, *, base: Bench, trials: list[Trial]) -> None:
        """Tries the recipes one after the other, and adds to the trials."""
        known = {one.form.sha256: one.recipe.name for one in reversed(trials) if one.form is not None}
        known[trial.form_of(self._source.model).sha256] = "the exported one"
        self._watcher.expect(len(recipes))
        for recipe in recipes:
            self._watcher.now(recipe.name)
            reason = candidates.unseen(recipe, has_data=bool(base.calibration), asked=self._options.asked)
            reason = reason or self._late(recipe, trials)
            one = (
                Trial(recipe)
                if reason
                else trial.attempt(recipe, replace(material, ends=self._ends()), base, known=known)
            )
            if reason:
                one.end("not applicable", reason)
            if one.form is not None:
                known.setdefault(one.form.sha256, recipe.name)
            trials.append(one)
            self._watcher.finished(_line(one))

    def _late(self, recipe: Recipe, trials: Sequence[Trial]) -> str | None:
        """Why no further recipe is begun, or None: what is left of the time belongs to the final.

        One of lower precision is tried in any case: the large gains are there.
        """
        limit = self._options.time_limit
        # What does not fit the model tells so at once, and was no try.
        tried = [one for one in trials if one.outcome != "not applicable" or one.seconds > AT_ONCE * limit]
        first = recipe.precision != "fp32" and all(one.lossless for one in tried)
        if first or time.perf_counter() - self._start < TRYING * limit:
            return None
        return f"there was no time left to try it (time limit {limit:g} s)"

    def _ends(self) -> float:
        """When a recipe that begins now is to be through: half of what is left is for those after it."""
        left = self._start + SEARCHING * self._options.time_limit - time.perf_counter()
        return time.monotonic() + max(left, 0.0) / 2

    def _material(self, base: Bench, folder: Path) -> Material:
        def holds(form: onnx.ModelProto) -> bool:
            try:
                return base.unequal(open_engine(form, base.threads), lossless=True) is None
            except ModelInvalid:
                return False

        exported = self._source.model
        plain, fused = proven(exported, holds)
        shared: dict[str, Any] = {PLAIN: plain}
        instructions = frozenset(self._machine.instructions)
        return Material(
            exported, fused, base.calibration, base.timed, instructions, base.threads, folder, shared=shared
        )

    def _selected(self, trials: Sequence[Trial], base: Bench) -> Result:
        left = self._finalists([one for one in trials if one.outcome is None])
        kept: Trial | None = None
        rounds: Sequence[float] = ()
        if left:
            self._watcher.now("timing the best ones")
            rounds = trial.final(left, base, ends=self._start + SEARCHING * self._options.time_limit)
            best = choose(
                [trial.contender(one) for one in left],
                baseline=trial.latency_of(rounds).median_seconds,
                target=self._options.target_latency,
                alpha=left[0].alpha,
            )
            kept = next((one for one in left if best is not None and one.recipe.name == best.name), None)
        for one in left:
            one.end(*_settled(one, kept))
        return self._closed(kept, trials, base=base, rounds=rounds)

    def _finalists(self, left: Sequence[Trial]) -> list[Trial]:
        lower = [one for one in left if not one.lossless]
        target = self._options.target_latency
        if target is not None:
            near = [one for one in lower if trial.contender(one).seconds <= target * 1.1]
            lower = sorted(near, key=lambda one: one.loss) or lower
        else:
            lower = sorted(lower, key=lambda one: one.ratio.median)
        for one in lower[FINALISTS:]:
            one.end("refused", "within the budget, but others were further ahead in their heats")
        return [*(one for one in left if one.lossless), *lower[:FINALISTS]]

    def _closed(self, kept: Trial | None, trials: Sequence[Trial], *, base: Bench, rounds: Sequence[float]) -> Result:
        """The last check of what is given out, as its bytes will be read; and the report."""
        model, failed = self._source.model, None
        if kept is not None and kept.made is not None:
            made = onnx.ModelProto.FromString(kept.made.model.SerializeToString())
            if (reason := _fails(made, kept, base)) is None:
                model = made
            else:
                kept.end("refused", f"the last check failed: {reason}")
                failed = f"The exported model is kept: {kept.recipe.name} was the best, but {kept.reason}."
                kept = None
        name, verdict = None if kept is None else kept.recipe.name, failed or self._verdict(kept, trials)
        document = self._report(model, kept=name, verdict=verdict).model_copy(
            update={
                "baseline": trial.latency_of(rounds) if rounds else None,
                "candidates": [trial.entry(one, base) for one in trials],
                "budget": None if base.budget is None else str(base.budget),
                "judged_on": None if base.judged is None else f"{base.judged.samples} samples of {base.judged.kind}",
                "shapes": [bench.shapes_of(feed) for feed in base.timed],
            }
        )
        return Result(model, document)

    def _verdict(self, kept: Trial | None, trials: Sequence[Trial]) -> str:
        target = self._options.target_latency
        missed = ""
        if kept is None:
            if target is not None:
                missed = "; see the baseline for whether it meets the target latency"
            return f"The exported model is kept: no candidate is faster than onnxruntime's default{missed}."
        seconds = trial.contender(kept).seconds
        if target is not None and seconds > target:
            missed = f" The target latency of {target * 1e3:.3g} ms is missed: nothing within the budget meets it."
        return f"{kept.recipe.name} is kept: {_gain(kept)}.{missed}"

    def _untouched(self, reason: str) -> Result:
        document = self._report(self._source.model, kept=None, verdict=f"Passed through untouched, because {reason}.")
        origin: tuple[Path, ...] = ()
        if self._source.untouched is not None and self._source.path is not None:
            origin = (self._source.path, *self._source.weights)
        return Result(self._source.model, document.model_copy(update={"untouched": reason}), origin)

    def _report(self, model: onnx.ModelProto, *, kept: str | None, verdict: str) -> Report:
        exported = Form(
            sha256=self._source.digest, bytes=self._source.bytes, nodes=count_nodes(self._source.model.graph)
        )
        return Report(
            source=self._source.name,
            exported=exported,
            result=exported if model is self._source.model else trial.form_of(model),
            kept=kept,
            verdict=verdict,
            target_latency_seconds=self._options.target_latency,
            notes=self._notes,
            machine=self._machine,
            versions=dict(self._versions),
            seed=self._options.seed,
            seconds=0.0,
        )


def _fails(model: onnx.ModelProto, kept: Trial, base: Bench) -> str | None:
    """Why a model that is to be given out does not pass the last check, or None."""
    try:
        sources.check(model, "the result")
        engine = open_engine(model, base.threads)
        reason = base.unequal(engine, lossless=kept.lossless)
        if reason is None and not kept.lossless:
            reason = next(iter(base.verdict(engine).broken), None)
    except Exception as error:
        # As in a trial: what a user's metric or foreign code raises must cost the form, not the optimization.
        return brief(error)
    return reason


def _gain(one: Trial) -> str:
    ratio = one.ratio
    # Of fewer rounds than can show anything there are no bounds.
    bounds = f" ({ratio.lower:.3f} to {ratio.upper:.3f})" if math.isfinite(ratio.upper) else ""
    text = f"{ratio.median:.3f} of the default's latency{bounds}"
    measured = {} if one.verdict is None else one.verdict.values
    values = ", ".join(f"{name} {value:.4f}" for name, value in measured.items())
    return f"{text}, {values}" if values else text


def _settled(one: Trial, kept: Trial | None) -> tuple[Outcome, str]:
    if one is kept:
        how = "faster beyond the noise" if one.ratio.faster else "not slower, and lossless"
        return "kept", f"{how}: {_gain(one)}"
    if not one.ratio.faster:
        return "refused", f"{'it is slower' if one.ratio.slower else 'not faster beyond the noise'}: {_gain(one)}"
    if kept is None:
        return "refused", f"{_gain(one)}; the default meets the target latency without any loss"
    if kept.loss < one.loss:
        return "refused", f"{_gain(one)}; {kept.recipe.name} is more exact, and fast enough"
    return "refused", f"{_gain(one)}; {kept.recipe.name} is faster"


def _line(one: Trial) -> str:
    if one.outcome is not None:
        return f"{one.recipe.name}: {one.outcome}: {one.reason}"
    return f"{one.recipe.name}: {_gain(one)}, to the final"
