"""The final: it runs on where rounds left open whether a lossless form is slower, and no further."""

import math
import time
from types import SimpleNamespace
from typing import Any

import pytest

from openclaw.optimizer import selection, timing, trial
from openclaw.optimizer.recipe import Recipe
from openclaw.optimizer.trial import BASELINE, Trial

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
