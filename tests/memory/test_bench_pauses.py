"""What the benchmark says of the garbage collector's pauses."""

from __future__ import annotations

import pytest
from benchmarks.memory.pausing import PauseResults, table, verdict
from benchmarks.serving.pauses import Paused


def paused(mode: str, total: float) -> Paused:
    return Paused(mode, count=1, total=total, p99=total, longest=total, reported=total, latency=0.0, answered=1)


@pytest.mark.parametrize(("managed", "holds", "says"), [(0.025, True, "-75 %"), (0.026, False, "-74 %")])
def test_the_target_is_a_quarter_of_the_defaults_pauses(managed: float, holds: bool, says: str) -> None:
    runs = [paused("default", each) for each in (0.1, 0.05, 0.2)] + [paused("managed", managed)]
    told = verdict(runs)
    assert told.holds is holds
    assert says in told.measured


def test_without_figures_nothing_is_said() -> None:
    assert verdict([]).holds is None
    assert verdict([paused("default", 0.0), paused("managed", 0.0)]).holds is None


def test_the_table_has_each_run_and_the_json_gives_it_back() -> None:
    runs = (paused("default", 0.1), paused("managed", 0.02))
    machine = {"cpu": "a cpu", "cores": 2, "commit": "abc", "date": "2026-11-21"}
    found = PauseResults(machine=machine, small=False, runs=runs, verdicts=(verdict(runs),))
    text = table(found)
    assert "| default | 1 | 100.00 | 100.00 | 100.00 | 0.00 | 1 |" in text
    assert "| -80 % (100.0 ms to 20.0 ms) | yes |" in text
    assert "commit abc" in text
    assert PauseResults.model_validate_json(found.model_dump_json()) == found
