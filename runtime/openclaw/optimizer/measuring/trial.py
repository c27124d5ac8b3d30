"""The trial of one candidate: made, checked, compared, timed against the default, and judged; whatever goes wrong in it
costs only this candidate.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx

from openclaw.errors import ModelInvalid, NotApplicable, OpenClawError
from openclaw.execute.engines import OWN
from openclaw.optimizer.accuracy.budget import Verdict
from openclaw.optimizer.measuring import selection, timing
from openclaw.optimizer.measuring.bench import Bench
from openclaw.optimizer.measuring.engine import Engine, brief, open_engine
from openclaw.optimizer.measuring.rehearsal import rehearse
from openclaw.optimizer.model.contents import count_nodes
from openclaw.optimizer.model.source import MAX_BYTES, check, in_order
from openclaw.optimizer.recipe import Made, Material, Recipe
from openclaw.optimizer.results import report

Outcome = Literal["kept", "refused", "not applicable"]

BASELINE = "onnxruntime's default"


class Refused(OpenClawError):  # noqa: N818 - the outcome that it stands for
    """A candidate is out; the text says why."""


@dataclass
class Trial:
    """How far a candidate came.

    Attributes:
        recipe: what it is made by.
        outcome: None as long as it may be kept.
        reason: for the outcome.
        made, form, engine: what it made, if it came so far; the engine as long as it may be kept.
        rounds, baseline: seconds of its rounds and of the default's beside them; of the final if it came so far.
        verdict: of the guard, for lower precisions.
        alpha: of the comparison.
        seconds: what the trial took.
    """

    recipe: Recipe
    outcome: Outcome | None = None
    reason: str = ""
    made: Made | None = None
    form: report.Form | None = None
    engine: Engine | None = None
    rounds: Sequence[float] = ()
    baseline: Sequence[float] = ()
    verdict: Verdict | None = None
    alpha: float = selection.ALPHA
    seconds: float = 0.0
    notes: dict[str, object] = field(default_factory=dict)

    @property
    def lossless(self) -> bool:
        """Whether its answers are equal to the exported model's."""
        return self.recipe.precision == "fp32"

    @property
    def loss(self) -> float:
        """The share of the accuracy budget that it uses; 0 for what is lossless alone."""
        return 0.0 if self.lossless or self.verdict is None else max(self.verdict.used, 1e-12)

    @property
    def ratio(self) -> selection.Ratio:
        """Its latency over the default's."""
        return selection.ratio(self.rounds, self.baseline, alpha=self.alpha)

    def end(self, outcome: Outcome, reason: str) -> None:
        """Settles it, and lets go of its engine."""
        self.outcome, self.reason, self.engine = outcome, reason, None


def form_of(model: onnx.ModelProto) -> report.Form:
    """What identifies a model in memory."""
    data = model.SerializeToString(deterministic=True)
    return report.Form(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), nodes=count_nodes(model.graph))


def attempt(recipe: Recipe, material: Material, bench: Bench, *, known: Mapping[str, str]) -> Trial:
    """Tries a recipe.

    Args:
        recipe: what to try.
        material: what it starts from.
        bench: what it is held against.
        known: names of forms that were tried before, by their SHA-256.
    """
    trial, start = Trial(recipe), time.perf_counter()
    try:
        _make(trial, material, bench, known=known)
        _heat(trial, bench)
        _judge(trial, bench)
    except NotApplicable as error:
        trial.end("not applicable", str(error))
    except Refused as error:
        trial.end("refused", str(error))
    except Exception as error:
        # Recipes drive foreign code over models that nobody foresaw: what one raises must not cost the others.
        trial.end("refused", f"it failed: {type(error).__name__}: {brief(error)}")
    trial.seconds = time.perf_counter() - start
    return trial


def _make(trial: Trial, material: Material, bench: Bench, *, known: Mapping[str, str]) -> None:
    trial.made = trial.recipe.make(material, bench.loss)
    trial.notes = dict(trial.made.notes)
    in_order(trial.made.model, "what it made")
    if trial.made.model.ByteSize() > MAX_BYTES:
        raise Refused(f"it has {trial.made.model.ByteSize():,} bytes; a model must stay below 2 GiB")
    trial.form = form_of(trial.made.model)
    if (same := known.get(trial.form.sha256)) is not None:
        raise NotApplicable(f"it made the same model as {same}")
    try:
        check(trial.made.model, "what it made")
        if trial.recipe.engine != OWN:
            feeds = (*bench.probes.feeds, *bench.timed)
            rehearse(trial.made.model, feeds, threads=bench.threads, folder=material.folder)
        trial.engine = open_engine(trial.made.model, bench.threads)
    except ModelInvalid as error:
        raise Refused(str(error)) from error
    if (reason := bench.unequal(trial.engine, lossless=trial.lossless)) is not None:
        raise Refused(f"its answers are wrong: {reason}")


def _heat(trial: Trial, bench: Bench) -> None:
    """A short comparison with the default alone, which spares the others what has no chance.

    What costs no accuracy is only out if the few rounds show that it is slower: on par is enough for it to stay.
    """
    assert trial.engine is not None
    name = trial.recipe.name
    rounds = timing.compare(
        {BASELINE: bench.engine, name: trial.engine},
        bench.timed,
        plan=timing.HEAT,
        seed=bench.seed,
        stop=lambda seen: selection.hopeless(seen[name], seen[BASELINE]),
    )
    trial.rounds, trial.baseline = rounds[name], rounds[BASELINE]
    seen = trial.ratio
    out = seen.slower or selection.hopeless(trial.rounds, trial.baseline) if trial.lossless else seen.median > 1
    if out:
        raise Refused(f"it is slower: {trial.ratio.median:.2f} of the default's latency in {trial.ratio.rounds} rounds")


def _judge(trial: Trial, bench: Bench) -> None:
    if trial.lossless:
        return
    assert trial.engine is not None
    trial.verdict = bench.verdict(trial.engine)
    if not trial.verdict.within:
        raise Refused(f"over the accuracy budget: {'; '.join(trial.verdict.broken)}")


def final(trials: Sequence[Trial], bench: Bench, *, ends: float) -> Sequence[float]:
    """Times what is left against the default anew, all in the same rounds; gives the default's rounds.

    The heats chose who is in it, so their times are not used: they would flatter the chosen. As long as
    ``selection.unsettled`` says so and it is not yet ``ends`` (by ``time.perf_counter``), all that is not slower runs
    on, until it was looked at ``selection.LOOKS`` times.
    """
    baseline: list[float] = []
    running = list(trials)
    alpha = selection.ALPHA / len(trials) / selection.LOOKS
    for trial in trials:
        trial.rounds, trial.alpha = (), alpha
    first = timing.FINAL.at_least(selection.rounds_needed(alpha))
    for look in range(selection.LOOKS):
        engines = {BASELINE: bench.engine}
        for trial in running:
            assert trial.engine is not None
            engines[trial.recipe.name] = trial.engine
        plan = timing.MORE if look else first
        rounds = timing.compare(engines, bench.timed, plan=plan, seed=bench.seed + 1 + look)
        baseline += rounds[BASELINE]
        for trial in running:
            trial.rounds, trial.baseline = (*trial.rounds, *rounds[trial.recipe.name]), tuple(baseline)
        if time.perf_counter() >= ends or not selection.unsettled([contender(trial) for trial in running]):
            break
        running = [trial for trial in running if not trial.ratio.slower]
    return baseline


def contender(trial: Trial) -> selection.Contender:
    """A trial that came to the final, for the selection."""
    return selection.Contender(
        trial.recipe.name,
        loss=trial.loss,
        seconds=timing.Spread.of(trial.rounds).median,
        ratio=trial.ratio,
        rounds=trial.rounds,
        lossless=trial.lossless,
    )


def latency_of(rounds: Sequence[float]) -> report.Latency:
    """Rounds as the report shows them."""
    spread = timing.Spread.of(rounds)
    return report.Latency(
        median_seconds=spread.median,
        first_quartile_seconds=spread.quartiles[0],
        third_quartile_seconds=spread.quartiles[1],
        rounds=len(rounds),
    )


def entry(trial: Trial, bench: Bench) -> report.Candidate:
    """A trial as the report shows it."""
    assert trial.outcome is not None
    timed = latency_of(trial.rounds) if trial.rounds else None
    compared = None
    if trial.rounds:
        ratio = trial.ratio
        compared = report.Comparison(
            median=ratio.median, lower=ratio.lower, upper=ratio.upper, confidence=1 - trial.alpha, rounds=ratio.rounds
        )
    judged = None
    if trial.verdict is not None and bench.judged is not None:
        judged = report.Accuracy(
            values=dict(trial.verdict.values),
            budget_used=trial.verdict.used,
            judged_on=bench.judged.kind,
            samples=bench.judged.samples,
        )
    return report.Candidate(
        name=trial.recipe.name,
        precision=trial.recipe.precision,
        engine=trial.recipe.engine,
        outcome=trial.outcome,
        reason=trial.reason,
        form=trial.form,
        latency=timed,
        ratio=compared,
        accuracy=judged,
        notes=trial.notes,
        seconds=trial.seconds,
    )
