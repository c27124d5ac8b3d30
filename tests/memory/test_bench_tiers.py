"""The benchmark of tiers: what it sets out to reach, its table, and a small run."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.memory.groups import parent_group
from benchmarks.memory.run import main
from benchmarks.memory.tier_records import Crowd, Oversize, TierResults, Workers, table, verdicts
from benchmarks.records import Origin
from benchmarks.targets import Verdict
from click.testing import CliRunner

MIB = 1 << 20
MACHINE = {"cpu": "a cpu", "cores": 2, "engine": "onnxruntime 1.31.1", "commit": "abc", "date": "2026-11-21"}
OVERSIZE = Oversize(
    model=768 * MIB,
    limit=512 * MIB,
    peak=512 * MIB,
    tier="mapped",
    ready=3.0,
    answered=20,
    wrong=0,
    seconds=10.0,
    roomy=0.1,
)
CROWD = Crowd(
    models=20,
    model=100 * MIB,
    budget=600 * MIB,
    answered=100,
    failed=0,
    wrong=0,
    seconds=10.0,
    evictions=40,
    waits={"mapped": (0.01, 0.02, 0.03), "packed": (0.2,)},
    latencies=(0.01,) * 100,
    resident=700 * MIB,
    limit=760 * MIB,
    peak=750 * MIB,
    kills=0,
)
WORKERS = Workers(model=400 * MIB, pss={1: 500 * MIB, 4: 550 * MIB})


def told(**parts: Oversize | Crowd | Workers) -> list[Verdict]:
    return verdicts(TierResults.model_validate({"machine": MACHINE, **parts}))


def test_every_target_is_held_against_what_was_measured() -> None:
    found = told(oversize=OVERSIZE, crowd=CROWD, workers=WORKERS)
    assert [each.holds for each in found] == [True, True, True]
    assert "1.50x of 512 MiB, mapped: 0 of 20 wrong; 2.00 requests/s (10.0 without a limit)" in found[0].measured
    assert "0 of 100 failed; 40 evictions; back after 20 ms (p50), 200 ms (p99)" in found[1].measured
    assert found[1].measured.endswith("0 killed, at most 750 of 760 MiB")
    assert found[2].measured == "1.10x (500 to 550 MiB)"


@pytest.mark.parametrize(
    ("part", "worse"),
    [
        ("oversize", OVERSIZE.model_copy(update={"wrong": 1})),
        ("oversize", OVERSIZE.model_copy(update={"model": 700 * MIB})),
        ("crowd", CROWD.model_copy(update={"failed": 1})),
        ("crowd", CROWD.model_copy(update={"wrong": 1})),
        ("crowd", CROWD.model_copy(update={"models": 5})),
        ("crowd", CROWD.model_copy(update={"kills": 1})),
        ("workers", WORKERS.model_copy(update={"pss": {1: 500 * MIB, 4: 600 * MIB}})),
    ],
)
def test_what_does_not_hold_is_told(part: str, worse: Oversize | Crowd | Workers) -> None:
    assert False in [each.holds for each in told(**{part: worse})]


@pytest.mark.parametrize("lacks", ["limit", "kills"])
def test_without_a_control_group_it_is_not_said_that_nothing_was_killed(lacks: str) -> None:
    found = told(crowd=CROWD.model_copy(update={lacks: None}))[1]
    assert found.holds is None
    assert "without a control group" in found.measured


def test_each_part_says_of_which_commit_it_is_if_it_is_not_the_runs() -> None:
    origins = {"crowd": Origin(commit="abc", date="d"), "workers": Origin(commit="old", date="e")}
    found = TierResults(machine=MACHINE, origins=origins, crowd=CROWD, workers=WORKERS)
    told = verdicts(found)
    assert [each.holds for each in told] == [None, True, True]
    assert ["commit" in each.measured for each in told] == [False, False, True]
    assert told[2].measured.endswith("; commit old")
    assert "crowd: commit abc, d; workers: commit old, e" in table(found)
    assert {each.holds for each in verdicts(found.model_copy(update={"small": True}))} == {None}


def test_what_was_not_measured_is_told_and_joined_from_an_earlier_run() -> None:
    assert [each.holds for each in told()] == [None, None, None]
    old, new = Origin(commit="old", date="d"), Origin(commit="abc", date="e")
    earlier = TierResults(machine=MACHINE, crowd=CROWD, origins={"crowd": old})
    joined = TierResults(machine=MACHINE, workers=WORKERS, origins={"workers": new}).joined(earlier)
    assert (joined.crowd, joined.workers) == (CROWD, WORKERS)
    assert joined.origins == {"crowd": old, "workers": new}
    assert TierResults(machine=MACHINE, small=True).joined(earlier).crowd is None
    assert "| mapped | 3 | 20 | 30 | 30 |" in table(joined)


def test_a_small_run_measures_what_it_is_asked_for(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["tiers", "--quick", "--only", "crowd", "--results", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = TierResults.read(tmp_path / "memory-tiers.json")
    assert found is not None
    assert found.crowd is not None
    assert (found.crowd.answered, found.crowd.failed, found.crowd.wrong) == (200, 0, 0)
    assert found.crowd.evictions > 0
    assert (tmp_path / "memory-tiers.md").read_text().startswith("# Tiers of models")
    assert set(found.origins) == {"crowd"}
    if parent_group() is not None:
        assert found.crowd.kills == 0
        assert found.crowd.limit is not None
        assert found.crowd.peak is not None
        assert found.crowd.peak <= found.crowd.limit
