"""How slow a way to hold activations may be, so that a form and its memory together are what was promised."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import openclaw
from openclaw.memory.choice import DEFAULT, SLOWER
from openclaw.optimizer import candidates
from openclaw.optimizer.measuring.selection import NOT_SLOWER
from openclaw.optimizer.memory import racing
from openclaw.optimizer.memory.applying import allowance
from openclaw.optimizer.memory.choosing import Chooser, Chosen
from openclaw.optimizer.memory.comparing import LOOKS, stays
from openclaw.optimizer.results.report import Candidate, Comparison, Report
from openclaw.optimizer.surroundings import read_machine
from optimizer import models


def report(upper: float | None) -> Report:
    """Of an optimization that kept a form of such an upper bound, or none."""
    refused = Candidate(name="slow", precision="fp32", outcome="refused", reason="it is slower")
    ratio = None if upper is None else Comparison(median=upper, lower=upper, upper=upper, confidence=0.99, rounds=21)
    kept = Candidate(name="fast", precision="int8", outcome="kept", reason="it is faster", ratio=ratio)
    form = {"sha256": "0" * 64, "bytes": 1, "nodes": 1}
    return Report.model_validate(
        {
            "source": "m", "exported": form, "result": form, "verdict": "", "machine": read_machine(1), "versions": {},
            "seed": 0, "seconds": 1.0, "candidates": [refused] if upper is None else [refused, kept],
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("upper", "allowed"),
    [(None, 1.0), (0.4, SLOWER), (0.999, 1.02 / 0.999), (1.0, 1.02), (1.015, 1.02 / 1.015), (1.05, 1.0)],
)
def test_a_form_and_its_memory_together_take_no_more_than_a_lossless_form_may(
    upper: float | None, allowed: float
) -> None:
    found = allowance(report(upper))
    assert found == pytest.approx(allowed)
    if upper is not None and upper <= NOT_SLOWER:
        assert found * upper <= NOT_SLOWER + 1e-9


@pytest.mark.parametrize("divided", [False, True])
def test_what_is_allowed_decides_what_stays(*, divided: bool) -> None:
    noise = np.random.default_rng(0).normal(0, 1e-3, (2, LOOKS[1]))
    default, slower, same = np.exp(noise[0]), 1.005 * np.exp(noise[1]), np.exp(noise[1])
    held = partial(stays, divided=divided)
    assert held(list(slower), list(default), allowed=SLOWER)
    assert not held(list(slower), list(default), allowed=1.0)
    assert held(list(same - 0.005), list(default), allowed=1.0)


SIDE = 32


def chain() -> onnx.ModelProto:
    """Convolutions that make 200 kB a row each."""
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["c"], pads=[1] * 4),
        helper.make_node("ReduceMean", ["c"], ["y"], axes=[2, 3], keepdims=0),
    ]
    weights = [models.weight("v", 48, 3, 3, 3), models.weight("w", 48, 48, 3, 3)]
    return models.made(nodes, [models.tensor("x", "N", 3, SIDE, SIDE)], [models.tensor("y", "N", 48)], weights=weights)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times only as often as it takes to show anything."""
    monkeypatch.setattr(racing, "TIMING", replace(racing.TIMING, rounds=LOOKS[0], slice_seconds=0.001))


def chosen(folder: Path, allowed: float) -> Chosen:
    path = folder / "model.onnx"
    onnx.save(chain(), path)
    feed = {"x": np.random.default_rng(0).standard_normal((16, 3, SIDE, SIDE)).astype(np.float32)}
    ends = time.perf_counter() + 60
    return Chooser(chain(), path, [feed], threads=1, asked="auto", ends=ends, allowed=allowed).chosen()


@pytest.mark.usefixtures("quick")
def test_nothing_is_kept_that_takes_more_than_is_allowed(tmp_path: Path) -> None:
    none, any_ = chosen(tmp_path, 0.01), chosen(tmp_path, 100.0)
    assert none.report.kept == DEFAULT
    assert {way.outcome for way in none.report.ways} == {"refused"}
    assert any_.report.kept != DEFAULT
    assert "100 is allowed" in any_.report.verdict


@pytest.mark.usefixtures("quick")
def test_an_exported_model_that_is_kept_gives_no_time_for_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "all_recipes", lambda: ())
    found = openclaw.optimize(chain(), threads=1, engines=["onnxruntime"]).report
    assert found.kept is None
    assert found.memory is not None
    assert found.memory.ways
    for way in found.memory.ways:
        assert f"{SLOWER} is allowed" not in way.reason
        assert way.outcome == "refused" or max(way.ratios) <= 1 or "no slower beyond the noise" in way.reason
