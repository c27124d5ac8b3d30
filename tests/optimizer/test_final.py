"""Heats put out what has no chance; the final runs on where it is open whether a lossless form is slower."""

import math
import time
from types import SimpleNamespace
from typing import Any

import pytest

from openclaw.optimizer import candidates, engines
from openclaw.optimizer.measuring import selection, timing, trial
from openclaw.optimizer.measuring.trial import BASELINE, Trial
from openclaw.optimizer.recipe import Made, Recipe
from openclaw.optimizer.run import FINALISTS
from optimizer import models

OPEN = [0.9, 1.1] * 10 + [1.0]
PAR, SLOW, FAST = [1.0] * 21, [1.1] * 21, [0.5] * 21


def final(
    monkeypatch: pytest.MonkeyPatch, forms: dict[str, list[float]], *, ends: float = math.inf, precision: str = "fp32"
) -> tuple[list[set[str]], list[Trial]]:
    """Who ran in every look, and the trials."""
    looks: list[set[str]] = []

    def compare(engines: dict[str, object], *given: Any, **more: Any) -> dict[str, list[float]]:
        looks.append(set(engines))
        return {name: [1.0] * 21 if name == BASELINE else forms[name] for name in engines}

    monkeypatch.setattr(timing, "compare", compare)
    trials = [Trial(Recipe(name, precision, lambda *_: None), engine=object()) for name in forms]  # type: ignore[arg-type, return-value]
    trial.final(trials, SimpleNamespace(engine=object(), timed=[], seed=0), ends=ends)  # type: ignore[arg-type]
    return looks, trials


def test_what_is_open_runs_on_and_what_is_slower_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, (undecided, slow) = final(monkeypatch, {"open": OPEN, "slow": SLOW})
    assert looks == [{BASELINE, "open", "slow"}, *[{BASELINE, "open"}] * (selection.LOOKS - 1)]
    assert len(undecided.rounds) == len(undecided.baseline) == 21 * selection.LOOKS
    assert len(slow.rounds) == len(slow.baseline) == 21
    assert slow.ratio.slower
    assert undecided.alpha == pytest.approx(selection.ALPHA / 2 / selection.LOOKS)


@pytest.mark.parametrize("forms", [{"par": PAR}, {"slow": SLOW}, {"open": OPEN, "fast": FAST}])
def test_what_is_settled_is_looked_at_once(monkeypatch: pytest.MonkeyPatch, forms: dict[str, list[float]]) -> None:
    assert len(final(monkeypatch, forms)[0]) == 1


def test_it_does_not_run_on_when_the_time_is_up_nor_for_what_costs_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(final(monkeypatch, {"open": OPEN}, ends=time.perf_counter())[0]) == 1
    assert len(final(monkeypatch, {"open": OPEN}, precision="int8")[0]) == 1


def test_a_slow_model_has_as_many_rounds_as_the_most_forms_need(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [Trial(one) for one in candidates.lossless_recipes()]
    made = Made(models.cnn())
    lower = [Trial(Recipe(f"int8-{number}", "int8", lambda *_: made)) for number in range(FINALISTS)]
    for one in (*own, *lower):
        one.made, one.rounds, one.baseline = made, [0.5] * 3, [1.0] * 3
    engine = [each for each in engines.recipes("openvino", models.cnn(), [*own, *lower]) if each.precision == "fp32"]
    forms = [*own, *(Trial(each) for each in engine), *lower]
    assert len(forms) > len(own) + FINALISTS, "each lossless form is on the other engine, too"
    for one in forms:
        one.engine = object()  # type: ignore[assignment]

    def compare(engines: dict[str, object], *given: Any, plan: timing.Plan, **more: Any) -> dict[str, list[float]]:
        """The time is up after the first round: none but those that are run in any case."""
        assert plan.least <= plan.rounds
        return {name: [1.0 if name == BASELINE else 0.5] * plan.least for name in engines}

    monkeypatch.setattr(timing, "compare", compare)
    trial.final(forms, SimpleNamespace(engine=object(), timed=[], seed=0), ends=0.0)  # type: ignore[arg-type]
    assert all(one.ratio.faster for one in forms)


@pytest.mark.parametrize(
    ("rounds", "precision", "out"),
    [
        ([1.2, 0.95, 1.1, 1.06, 1.05, 1.08, 1.07], "fp32", False),
        ([1.2, 1.01, 1.1, 1.06, 1.05, 1.08, 1.07], "fp32", True),
        ([1.2, 1.06, 1.1], "fp32", True),
        ([1.2, 1.02, 1.1], "fp32", False),
        ([1.2, 0.95, 1.1, 1.06, 1.05, 1.08, 1.07], "int8", True),
        ([0.8, 0.95, 1.1, 0.9, 0.9, 0.9, 0.9], "int8", False),
    ],
)
def test_a_heat_puts_out_what_is_lossless_only_if_every_round_was_slower(
    monkeypatch: pytest.MonkeyPatch, rounds: list[float], precision: str, out: bool
) -> None:
    monkeypatch.setattr(timing, "compare", lambda engines, *_, **__: {BASELINE: [1.0] * len(rounds), "form": rounds})
    one = Trial(Recipe("form", precision, lambda *_: None), engine=object())  # type: ignore[arg-type, return-value]
    bench = SimpleNamespace(engine=object(), timed=[], seed=0)
    if out:
        with pytest.raises(trial.Refused, match="it is slower"):
            trial._heat(one, bench)  # type: ignore[arg-type]
    else:
        trial._heat(one, bench)  # type: ignore[arg-type]
