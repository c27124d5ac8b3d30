"""Ways to hold activations are timed until it is settled which of them stay, the wanted ones first."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from openclaw.memory.choice import Way, ways
from openclaw.memory.properties import Memory
from openclaw.optimizer.memory import racing
from openclaw.optimizer.memory.comparing import LOOKS, Compared
from openclaw.optimizer.memory.racing import Race, Timed, opened
from optimizer import models

NUMBERS = [next(ways(rows, None)) for rows in (1, 2, 4)]
ARENA = next(ways(None, None))
FEED = {"x": np.ones((8, 256), np.float32)}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times so little that a test ends soon; no outcome hangs on it."""
    monkeypatch.setattr(racing, "TIMING", replace(racing.TIMING, slice_seconds=0.0001))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(models.wasteful(1), path)
    return path


def raced(model: Path, found: Sequence[Way], *, allowed: float, cases: int = 1, seconds: float = 60) -> list[Timed]:
    race = Race(model, [FEED] * cases, threads=1, allowed=allowed, seed=0)
    return race.run(found, until=time.perf_counter() + seconds)


def rounds(found: Sequence[Timed]) -> list[list[int]]:
    return [[each.rounds for each in timed.found] for timed in found]


def test_each_way_is_seen_once_where_there_is_no_time(model: Path) -> None:
    found = raced(model, NUMBERS, allowed=1e6, seconds=0)
    assert rounds(found) == [[1], [1], [1]]
    assert not any(each.stays for each in found), "one round shows nothing of fewer rows"


def test_what_comes_after_the_first_that_stays_is_not_settled(model: Path) -> None:
    found = raced(model, NUMBERS, allowed=1e6)
    assert rounds(found) == [[LOOKS[1]], [2], [2]]
    assert [each.stays for each in found] == [True, False, False]


def test_each_is_timed_until_it_is_refused_where_none_stays(model: Path) -> None:
    found = raced(model, NUMBERS, allowed=0.001)
    assert not any(each.stays for each in found)
    assert all(4 <= each <= LOOKS[0] for (each,) in rounds(found))


def test_only_what_stays_in_a_case_is_timed_in_the_next(model: Path) -> None:
    assert rounds(raced(model, [ARENA], allowed=1e6, cases=2)) == [[LOOKS[0], LOOKS[0]]]
    (refused,) = raced(model, [ARENA], allowed=0.001, cases=2)
    assert len(refused.found) == 1
    assert not refused.stays


def test_a_few_rounds_do_where_the_least_is_asked_for(model: Path) -> None:
    (found,) = raced(model, NUMBERS[:1], allowed=math.inf)
    assert found.stays
    assert rounds([found]) == [[LOOKS[0]]]
    assert found.reason.endswith("of the default's latency; the least was asked for")


def test_memories_with_one_arena_are_in_one_session(model: Path) -> None:
    engines = opened(model, [Memory(), Memory(rows=1), ARENA.memory], threads=1)
    answers = [engine.run(FEED) for engine in engines]
    for answer in answers[1:]:
        np.testing.assert_allclose(answer["y"], answers[0]["y"], rtol=1e-5)


@pytest.mark.parametrize(
    ("ratio", "bounds", "stays", "told"),
    [
        (1.01, (1.0, 1.02), True, "1.03 is allowed"),
        (1.06, (0.99, 1.2), True, "no slower beyond the noise of 14 rounds"),
        (1.06, (1.04, 1.08), False, "1.03 is allowed"),
        (1.02, (1.01, 1.025), False, "1.01 is allowed of fewer rows at a time"),
        (1.0, (0.9, 1.1), False, "14 rounds do not show that it is within 1.03"),
    ],
)
def test_the_reason_says_what_was_decisive(ratio: float, bounds: tuple[float, float], stays: bool, told: str) -> None:
    found = Compared(ratio=ratio, lower=bounds[0], upper=bounds[1], rounds=14)
    worst = Timed(NUMBERS[0], [replace(found, ratio=0.5), found], stays).reason
    assert worst == f"{found} of the default's latency; {told}"
