"""What the benchmark says of the garbage collector's pauses."""

from __future__ import annotations

import pytest
from benchmarks.memory.pausing import verdict
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
