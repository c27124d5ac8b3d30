"""What a model holds in each arena: measured, and a first region fitted to what it needs."""

from __future__ import annotations

import math
import time
from pathlib import Path

import onnx
import pytest

from openclaw.errors import ModelInvalid
from openclaw.memory.choice import Way, ways
from openclaw.memory.profile import ArenaUse
from openclaw.memory.properties import Memory
from openclaw.optimizer.memory import arenas as measuring
from openclaw.optimizer.memory.arenas import Arenas
from openclaw.optimizer.memory.holding import held
from openclaw.optimizer.recipe import Feed
from optimizer.test_memory import SIDE, chain, frames


def arenas(folder: Path, *cases: Feed) -> Arenas:
    model, path = chain(), folder / "model.onnx"
    onnx.save(model, path)
    return Arenas(model, path, cases, threads=1)


@pytest.mark.parametrize("rows", [None, 2])
def test_a_region_that_is_fitted_holds_the_least_of_all_and_the_runs_fit_in_it(
    rows: int | None, tmp_path: Path
) -> None:
    found = arenas(tmp_path, frames(1), frames(16)).measured(rows, until=math.inf)
    (fitted,) = [way for way in found if way.name.startswith("fitted")]
    assert fitted.memory.rows == rows
    assert all(found[fitted][-1] < held[-1] for way, held in found.items() if way != fitted)
    assert fitted.memory.arena is not None
    # Small weights lie in the region, too.
    assert found[fitted][-1] <= (fitted.memory.arena.initial_bytes or 0)
    assert all(len(held) == 2 for held in found.values())


def test_without_time_no_sizes_are_tried(tmp_path: Path) -> None:
    found = arenas(tmp_path, frames(16)).measured(None, until=time.perf_counter())
    assert [way.name for way in found] == ["same as requested", "pattern", "planned"]


def test_where_no_region_can_be_had_the_other_ways_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_regions(model: Path, feed: Feed, memory: Memory, *, threads: int) -> ArenaUse:
        if memory.arena and memory.arena.initial_bytes:
            raise ModelInvalid("no memory for the first region")
        return held(model, feed, memory, threads=threads)

    monkeypatch.setattr(measuring, "held", without_regions)
    found = arenas(tmp_path, frames(16)).measured(None, until=math.inf)
    assert [way.name for way in found] == ["same as requested", "pattern"]


def test_nothing_is_measured_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Memory, int]] = []

    def counted(model: Path, feed: Feed, memory: Memory, *, threads: int) -> ArenaUse:
        seen.append((memory, len(feed["x"])))
        return held(model, feed, memory, threads=threads)

    monkeypatch.setattr(measuring, "held", counted)
    measured = arenas(tmp_path, frames(1), frames(16))
    assert measured.measured(2, until=math.inf) == measured.measured(2, until=math.inf)
    assert len(seen) == len(set(seen))


def test_a_way_in_which_a_model_does_not_run_is_left_out(tmp_path: Path) -> None:
    wrong = {"x": frames(2)["x"][:, :, :, : SIDE // 2].astype("float64")}
    way: Way = next(ways(None, None))
    assert arenas(tmp_path, wrong).uses(way) == []
    assert arenas(tmp_path, wrong).measured(None, until=math.inf) == {}
