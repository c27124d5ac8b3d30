"""The benchmark of memory: its figures, its table and picture, and a small run of all of it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from benchmarks.graph.families.unet import UNET
from benchmarks.memory import kept, picture, report, run
from benchmarks.memory.forms import as_record
from benchmarks.memory.kept import COMPARED, earlier
from benchmarks.memory.lifetimes import random_flow
from benchmarks.memory.records import Case, Held, Lowered, Measured, Planned, Planning, Results, Turns
from benchmarks.memory.settings import CASES, CHOSEN, ENGINES, LOWER
from benchmarks.memory.verdicts import held, most, verdicts
from benchmarks.records import Origin
from benchmarks.targets import Verdict
from click.testing import CliRunner

from memory.oracle import overlaps
from openclaw.memory.choice import DEFAULT
from openclaw.memory.graphs import plan_graph
from openclaw.optimizer.optimize import optimize

ORIGIN = Origin(commit="abc", date="2026-11-21")
MACHINE = {"cpu": "a cpu", "cores": 2, "engine": "onnxruntime 1.31.1", "commit": "abc", "date": "2026-11-21"}
MIB = 1 << 20
SECONDS = (0.01, 0.011, 0.012)
INT8 = Lowered(
    recipe="int8-static-minmax",
    precision="int8",
    budget="cosine>=0.99",
    accuracy={"cosine": 0.9951},
    judged_on="32 samples of held-out data",
)
EXACT = Lowered(recipe=None, precision="fp32", budget="cosine>=0.99", refused="int8-dynamic: cosine is 0.7")


def measured(held: int, *, way: str = DEFAULT, peak: int = 300) -> Measured:
    return Measured(
        way=way,
        arena=Held(held=held * MIB, most=held * MIB, in_use=held * MIB),
        seconds=SECONDS,
        pss=(200 * MIB,) * 3,
        peak=(peak * MIB,) * 3,
    )


def case(*, batch: int = 1, share: float = 0.4, pace: float = 1.0, lost: float = 0.0, lower: Lowered = INT8) -> Case:
    return Case(
        title="A net",
        batch=batch,
        origin=ORIGIN,
        plan=Planned(arena=40 * MIB, lower_bound=40 * MIB, fragmentation=lost),
        lower=lower,
        turns={CHOSEN: Turns(mine=tuple(pace * each for each in SECONDS), default=SECONDS)},
        measured={
            DEFAULT: measured(100),
            CHOSEN: measured(int(100 * share), way="pattern"),
            LOWER: measured(30, way="same as requested, 1 row at a time", peak=90),
        },
    )


def results(cases: dict[str, Case] | None = None, *, planning: Planning | None = None, small: bool = False) -> Results:
    return Results(machine=MACHINE, threads=2, small=small, cases=cases or {}, planning=planning)


def every(**of_each: float) -> dict[str, Case]:
    return {name: case(batch=int(name.rpartition("-")[2]), **of_each) for name in CASES}


def verdict(found: Results, beginning: str) -> Verdict:
    return next(each for each in verdicts(found) if each.target.startswith(beginning))


OF_CASES = (
    "Activation memory",
    "Never more",
    "Latency",
    "The whole process has",
    "The whole process at its peak",
    "Fragmentation of the plan",
)


def test_every_target_is_held_against_what_was_measured() -> None:
    cases = every(share=0.4)
    cases["unet-16"] = case(share=0.6, pace=1.02)
    good = results(cases)
    for beginning in (*OF_CASES, "The same of ResNet50"):
        assert verdict(good, beginning).holds, beginning
    assert verdict(good, "Activation memory").measured == "0.40x"
    assert verdict(good, "Never more").measured == "at worst 0.60x: U-Net, batch 16"
    assert "0.30x, at worst 0.30x: " in verdict(good, "The whole process at its peak").measured
    assert verdict(good, "The same of ResNet50").measured == "0.30x, int8"
    heavy = cases["bert-1"]
    chosen = heavy.measured[CHOSEN].model_copy(update={"pss": (260 * MIB,) * 3})
    cases["bert-1"] = heavy.model_copy(update={"measured": {**heavy.measured, CHOSEN: chosen}})
    assert verdict(results(cases), "The whole process has").holds is False
    assert "at worst 1.30x: BERT-base, batch 1" in verdict(results(cases), "The whole process has").measured
    bad = results(every(share=1.2, pace=1.05, lost=0.04))
    for beginning in ("Activation memory", "Never more", "Latency", "Fragmentation of the plan"):
        assert verdict(bad, beginning).holds is False, beginning
    assert {each.holds for each in verdicts(results())} == {None}


@pytest.mark.parametrize("beginning", OF_CASES)
def test_of_fewer_cases_than_all_nothing_is_said_to_hold(beginning: str) -> None:
    cases = every()
    del cases["bert-16"]
    told = verdict(results(cases), beginning)
    assert told.holds is None
    assert told.measured.endswith("9 of 10 cases: BERT-base, batch 16 missing")
    cases["bert-4"] = case(batch=4)
    assert verdict(results(cases), beginning) == told
    few = verdict(results({"bert-4": case(batch=4), "resnet50-16": case(batch=16)}), beginning)
    assert few.holds is None
    assert few.measured.endswith(
        "1 of 10 cases: ResNet50, batch 1, BERT-base, batch 1, BERT-base, batch 16 and 6 others missing"
    )


@pytest.mark.parametrize("beginning", OF_CASES)
def test_of_cases_of_another_commit_nothing_is_said_to_hold(beginning: str) -> None:
    cases = every()
    cases["unet-1"] = cases["unet-1"].model_copy(update={"origin": Origin(commit="old", date="2026-11-20")})
    told = verdict(results(cases), beginning)
    assert told.holds is None
    assert told.measured.endswith("of another commit than abc: U-Net, batch 1 (old)")
    assert verdict(results(cases), "The same of ResNet50").holds


def test_results_of_small_models_go_to_a_folder_of_their_own_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "RESULTS", tmp_path)
    assert kept.folder_of(None, quick=False) == tmp_path
    assert kept.folder_of(None, quick=True) == tmp_path / "quick"
    asked = tmp_path / "asked"
    assert kept.folder_of(asked, quick=True) == kept.folder_of(asked, quick=False) == asked
    assert asked.is_dir()


def test_of_small_models_nothing_is_said_to_hold() -> None:
    planning = Planning(origin=ORIGIN, fragmentation=(0.0,), tensors=2000, seconds=(0.05,), graph_seconds=(0.05,))
    found = results(every(), planning=planning, small=True)
    assert {each.holds for each in verdicts(found)} == {None}
    assert "The models are small ones" in report.table(found)
    assert results(every()).joined(found).planning is None


def test_outputs_are_counted_wherever_they_lie() -> None:
    one = case(share=0.4)
    chosen = one.measured[CHOSEN]
    beside = chosen.model_copy(update={"arena": chosen.arena.model_copy(update={"outside": 20 * MIB})})
    assert held(one.model_copy(update={"measured": {**one.measured, CHOSEN: beside}}), CHOSEN) == 0.6


def test_the_planner_has_targets_of_its_own() -> None:
    quick = Planning(
        origin=ORIGIN,
        fragmentation=(0.0, 0.005, 0.2),
        tensors=2000,
        seconds=(0.05, 0.06, 0.2),
        graph_seconds=(0.08, 0.09, 0.3),
    )
    assert verdict(results(planning=quick), "Fragmentation under 1%").holds
    assert verdict(results(planning=quick), "A plan of 2,000 tensors").measured == "60 ms (50 to 200)"
    assert verdict(results(planning=quick), "A plan of a graph").measured == "90 ms (80 to 300)"
    assert verdict(results(planning=quick), "A plan of a graph").holds
    slow = quick.model_copy(update={"seconds": (0.2,), "graph_seconds": (0.2,), "fragmentation": (0.05,)})
    old = quick.model_copy(update={"origin": Origin(commit="old", date="2026-11-20")})
    for beginning in ("Fragmentation under 1%", "A plan of 2,000 tensors", "A plan of a graph"):
        assert verdict(results(planning=slow), beginning).holds is False
        assert verdict(results(planning=old), beginning).holds is None
        assert verdict(results(planning=old), beginning).measured.endswith("of another commit than abc: old")


def test_a_random_graph_can_run_and_be_planned() -> None:
    flow = random_flow(3, 200)
    made = {"given"}
    for step in flow.steps:
        assert set(step.uses) <= made
        made |= set(step.makes)
    assert overlaps(plan_graph(flow).plan) == []
    assert random_flow(3, 200) == flow


def test_the_report_has_a_row_for_every_engine_and_joins_an_earlier_run(tmp_path: Path) -> None:
    report.written(results({"unet-1": case()}), tmp_path)
    earlier = Results.read(tmp_path / "memory.json")
    assert earlier is not None
    later = results({"unet-16": case(batch=16, share=0.5)})
    text = report.written(later.joined(earlier), tmp_path)
    assert text.count("| A net | 1 |") == text.count("| A net | 16 |") == 1 + len(ENGINES)
    assert "| A net | 16 | 40.0 (40.0) | 100.0 | 50.0 (0.50; pattern) | 30.0 (0.30; same as requested, 1 row" in text
    assert "| A net | 16 | chosen | 200 (200 to 200) | 1.00 | 300 resident | 1.00 | 11.0 | 1.000 (1.000 to" in text
    assert "| A net | 16 | lower precision: int8 | 200 (200 to 200) | 1.00 | 90 resident | 0.30 |" in text
    assert (tmp_path / "memory.md").read_text() == text
    again = Results.read(tmp_path / "memory.json")
    assert again is not None
    assert list(again.verdicts) == verdicts(again)


def test_the_report_says_what_the_accuracy_guard_allowed() -> None:
    text = report.table(results({"unet-1": case(), "bert-1": case(lower=EXACT).model_copy(update={"title": "B"})}))
    assert (
        "| A net | int8 | int8-static-minmax | cosine>=0.99 | cosine 0.9951 | 32 samples of held-out data |  |" in text
    )
    assert "| B | fp32 | as exported | cosine>=0.99 |  |  | int8-dynamic: cosine is 0.7 |" in text
    told = verdict(results({**every(), "bert-1": case(lower=EXACT)}), "The whole process at its peak")
    assert told.measured.endswith("1 of 10 stayed fp32")


def test_what_the_guard_refused_is_recorded_with_the_reason() -> None:
    result = optimize(
        UNET.build(small=True),
        precision="int8",
        accuracy_budget="max-abs<=0",
        calibration=UNET.feeds(8, small=True)[0],
        shapes={name: array.shape for name, array in UNET.feeds(1, small=True)[0].items()},
        engines=["onnxruntime"],
        memory="default",
        threads=1,
        time_limit=4,
    )
    told = as_record(result.report)
    assert (told.precision, told.budget, told.accuracy) == ("fp32", "max-abs<=0", {})
    assert told.refused
    assert "accuracy budget" in told.refused


def test_what_a_control_group_counted_is_held_against_the_target_if_there_was_one() -> None:
    both = case(share=0.5)
    grouped = {
        name: each.model_copy(update={"group_peak": (40 * MIB if name == LOWER else 400 * MIB,)})
        for name, each in both.measured.items()
    }
    assert most(both, LOWER) == 0.3
    assert most(both.model_copy(update={"measured": grouped}), LOWER) == 0.1


def test_the_picture_has_two_bars_for_every_case() -> None:
    root = ElementTree.fromstring(picture.arenas(results({"unet-1": case(share=0.4), "unet-16": case(share=0.5)})))
    bars = [each for each in root.iter("{http://www.w3.org/2000/svg}rect") if each.get("rx") == "2"]
    widths = [float(each.get("width", "0")) for each in bars]
    assert len(widths) == 4
    assert widths[1] == pytest.approx(0.4 * widths[0], rel=0.01)
    assert "No arena was measured" in picture.arenas(results())


def test_a_quick_run_measures_a_net_and_the_planner(tmp_path: Path) -> None:
    words = ["compare", "--quick", "--only", "unet", "--only", "planner", "--batch", "2", "--results", str(tmp_path)]
    done = CliRunner().invoke(run.main, words)
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "memory.json").read_text())
    assert told["left_out"] == []
    measured = told["cases"]["unet-2"]["measured"]
    assert set(measured) == {DEFAULT, *told["cases"]["unet-2"]["turns"]} == set(ENGINES)
    assert all(len(each["seconds"]) == 2 for each in measured.values())
    assert all(min(each["pss"]) > 1 << 20 for each in measured.values())
    assert 0 < measured[CHOSEN]["arena"]["in_use"] <= measured[CHOSEN]["arena"]["held"]
    assert measured[CHOSEN]["arena"]["held"] <= measured[DEFAULT]["arena"]["held"]
    assert len(told["planning"]["fragmentation"]) == 20
    assert told["small"]
    assert told["cases"]["unet-2"]["lower"]["budget"]
    done = CliRunner().invoke(run.main, ["summary", "--results", str(tmp_path)])
    assert done.exit_code == 0, done.output
    lines = (tmp_path / "memory-summary.md").read_text().splitlines()
    line = next(line for line in lines if line.startswith("| A plan of a graph with 2,000 tensors"))
    assert line.endswith(f"|  | {told['machine']['commit']} |")
    assert any("memory-tiers.json" in line and "not measured" in line for line in lines)


def test_an_earlier_run_is_joined_only_where_a_part_was_asked_for(tmp_path: Path) -> None:
    report.written(results({"unet-1": case()}, small=True), tmp_path)
    assert earlier(Results, tmp_path, name=COMPARED, part=False) is None
    done = CliRunner().invoke(run.main, ["compare", "--quick", "--only", "planner", "--results", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = earlier(Results, tmp_path, name=COMPARED, part=True)
    assert found is not None
    assert set(found.cases) == {"unet-1"}
    assert found.planning is not None
