"""The benchmark of memory: its figures, its table and picture, and a small run of all of it."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from benchmarks.memory import groups, picture, report, run
from benchmarks.memory.records import Case, Held, Measured, Planned, Planning, Results
from benchmarks.memory.settings import CHOSEN, ENGINES, LOWER
from benchmarks.memory.verdicts import most, verdicts
from benchmarks.records import Origin
from benchmarks.targets import Verdict
from click.testing import CliRunner

from openclaw.memory.choice import DEFAULT

ORIGIN = Origin(commit="abc", date="2026-11-21")
MACHINE = {"cpu": "a cpu", "cores": 2, "engine": "onnxruntime 1.31.1", "commit": "abc", "date": "2026-11-21"}
MIB = 1 << 20


def measured(held: int, *, way: str = DEFAULT, peak: int = 300) -> Measured:
    return Measured(
        way=way,
        arena=Held(held=held * MIB, most=held * MIB, in_use=held * MIB),
        seconds=(0.01, 0.011, 0.012),
        pss=(200 * MIB,) * 3,
        peak=(peak * MIB,) * 3,
    )


def case(batch: int, *, share: float, pace: float = 1.0, lost: float = 0.0, title: str = "A net") -> Case:
    return Case(
        title=title,
        batch=batch,
        origin=ORIGIN,
        plan=Planned(arena=40 * MIB, lower_bound=40 * MIB, fragmentation=lost),
        lower="int8-static-minmax",
        turns={DEFAULT: (0.01, 0.011, 0.012), CHOSEN: tuple(pace * each for each in (0.01, 0.011, 0.012))},
        measured={
            DEFAULT: measured(100),
            CHOSEN: measured(int(100 * share), way="pattern"),
            LOWER: measured(30, way="same as requested, 1 row at a time", peak=90),
        },
    )


def results(*cases: Case, planning: Planning | None = None) -> Results:
    return Results(machine=MACHINE, threads=2, cases={f"net-{each.batch}": each for each in cases}, planning=planning)


def verdict(found: Results, beginning: str) -> Verdict:
    return next(each for each in verdicts(found) if each.target.startswith(beginning))


def test_every_target_is_held_against_what_was_measured() -> None:
    good = results(case(1, share=0.4), case(16, share=0.6, pace=1.02), case(4, share=0.3))
    assert verdict(good, "Activation memory").holds
    assert verdict(good, "Activation memory").measured == "0.40x, 3 cases"
    assert verdict(good, "Never more").holds
    assert verdict(good, "Latency").holds
    assert verdict(good, "The whole process").holds
    heavy = case(1, share=0.4)
    chosen = heavy.measured[CHOSEN].model_copy(update={"pss": (260 * MIB,) * 3})
    heavy = heavy.model_copy(update={"measured": {**heavy.measured, CHOSEN: chosen}})
    assert verdict(results(heavy), "The whole process").holds is False
    assert "at worst 1.30x: A net, batch 1" in verdict(results(heavy), "The whole process").measured
    assert verdict(good, "The whole process at its peak").holds
    assert "0.30x, 3 cases, at worst 0.30x: A net, batch 1" in verdict(good, "The whole process at its peak").measured
    assert verdict(good, "The same of ResNet50").holds is None
    assert verdict(results(case(16, share=0.4, title="ResNet50")), "The same of ResNet50").holds
    bad = results(case(1, share=1.2, pace=1.05, lost=0.04))
    for beginning in ("Activation memory", "Never more", "Latency", "Fragmentation"):
        assert verdict(bad, beginning).holds is False, beginning
    nothing = results()
    assert {each.holds for each in verdicts(nothing)} == {None}


def test_the_planner_has_targets_of_its_own() -> None:
    quick = Planning(origin=ORIGIN, fragmentation=(0.0, 0.005, 0.2), tensors=2000, seconds=(0.05, 0.06, 0.2))
    assert verdict(results(planning=quick), "Under 1%").holds
    assert verdict(results(planning=quick), "A plan of 2,000 tensors").measured == "60 ms (50 to 200)"
    slow = quick.model_copy(update={"seconds": (0.2,), "fragmentation": (0.05,)})
    assert verdict(results(planning=slow), "Under 1%").holds is False
    assert verdict(results(planning=slow), "A plan of 2,000 tensors").holds is False


def test_the_report_has_a_row_for_every_arena_and_joins_an_earlier_run(tmp_path: Path) -> None:
    report.written(results(case(1, share=0.4)), tmp_path)
    earlier = Results.read(tmp_path / "memory.json")
    assert earlier is not None
    text = report.written(results(case(16, share=0.5)).joined(earlier), tmp_path)
    assert text.count("| A net | 1 |") == text.count("| A net | 16 |") == 1 + len(ENGINES)
    assert "| A net | 16 | 40.0 (40.0) | 100.0 | 50.0 (0.50; pattern) | 30.0 (0.30; same as requested, 1 row" in text
    assert "| A net | 16 | chosen | 200 (200 to 200) | 1.00 | 300 | 1.00 | 11.0 | 1.000 (1.000 to 1.000) |" in text
    assert "| A net | 16 | lower precision: int8-static-minmax | 200 (200 to 200) | 1.00 | 90 | 0.30 |" in text
    assert (tmp_path / "memory.md").read_text() == text


def test_what_a_control_group_counted_is_held_against_the_target_if_there_was_one() -> None:
    both = case(16, share=0.5)
    grouped = {
        name: each.model_copy(update={"group_peak": (40 * MIB if name == LOWER else 400 * MIB,)})
        for name, each in both.measured.items()
    }
    assert most(both, LOWER) == 0.3
    assert most(both.model_copy(update={"measured": grouped}), LOWER) == 0.1


def test_the_picture_has_two_bars_for_every_case() -> None:
    root = ElementTree.fromstring(picture.arenas(results(case(1, share=0.4), case(16, share=0.5))))
    bars = [each for each in root.iter("{http://www.w3.org/2000/svg}rect") if each.get("rx") == "2"]
    widths = [float(each.get("width", "0")) for each in bars]
    assert len(widths) == 4
    assert widths[1] == pytest.approx(0.4 * widths[0], rel=0.01)
    assert "No arena was measured" in picture.arenas(results())


def test_a_control_group_is_made_told_and_removed(tmp_path: Path) -> None:
    with groups.group(tmp_path, "one") as folder:
        assert folder is not None
        groups.join(folder)
        assert (folder / "cgroup.procs").read_text() == str(os.getpid())
        assert groups.most(folder) is None
        (folder / "memory.peak").write_text("4096\n")
        assert groups.most(folder) == 4096
        # The kernel's files go with the group; those of a plain folder do not.
        for file in folder.iterdir():
            file.unlink()
    assert not folder.exists()
    with groups.group(None, "none") as folder:
        groups.join(folder)
        assert groups.most(folder) is None


def test_a_quick_run_measures_a_net_and_the_planner(tmp_path: Path) -> None:
    words = ["compare", "--quick", "--only", "unet", "--only", "planner", "--batch", "2", "--results", str(tmp_path)]
    done = CliRunner().invoke(run.main, words)
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "memory.json").read_text())
    assert told["left_out"] == []
    measured = told["cases"]["unet-2"]["measured"]
    assert set(measured) == set(told["cases"]["unet-2"]["turns"]) == set(ENGINES)
    assert all(len(each["seconds"]) == 2 for each in measured.values())
    assert all(min(each["pss"]) > 1 << 20 for each in measured.values())
    assert 0 < measured[CHOSEN]["arena"]["in_use"] <= measured[CHOSEN]["arena"]["held"]
    assert measured[CHOSEN]["arena"]["held"] <= measured[DEFAULT]["arena"]["held"]
    assert len(told["planning"]["fragmentation"]) == 20
