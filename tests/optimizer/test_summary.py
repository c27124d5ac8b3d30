"""What is left of a report in a container's last words."""

import json

import pytest

from openclaw.optimizer import surroundings
from openclaw.optimizer.results.report import Accuracy, Candidate, Comparison, Form, Machine, Report
from openclaw.optimizer.step.summary import REASON_LENGTH, Summary, failed, node_type, summary_of

MACHINE = Machine(
    processor="Fast CPU @ 3 GHz", instructions=["avx2", "avx512_vnni", "fma"], cores=2, threads=2, system="Linux"
)


def report(kept: str | None = "int8-static", **changes: object) -> Report:
    exported = Form(sha256="0" * 64, bytes=1000, nodes=90)
    candidate = Candidate(
        name="int8-static", precision="int8", outcome="kept", reason="faster",
        ratio=Comparison(median=0.4137, lower=0.4, upper=0.43, confidence=0.99, rounds=21),
        accuracy=Accuracy(values={"top1": 0.99874, "cosine": 1.0}, budget_used=0.5, judged_on="held out", samples=50),
    )  # fmt: skip
    return Report(
        source="m.onnx", exported=exported, result=Form(sha256="1" * 64, bytes=262, nodes=30) if kept else exported,
        kept=kept, verdict="int8-static is kept: faster.", candidates=[candidate], machine=MACHINE,
        versions=surroundings.read_versions(), seed=0, seconds=1.0,
    ).model_copy(update=changes)  # fmt: skip


def test_a_faster_form_is_told_with_what_it_gains_and_costs() -> None:
    assert json.loads(summary_of(report(), "auto").line())["optimization"] == {
        "mode": "auto",
        "outcome": "Optimized",
        "nodeType": "Fast CPU @ 3 GHz, avx512_vnni, 2 threads",
        "form": "int8-static",
        "precision": "int8",
        "latencyPercent": 41,
        "accuracy": "top1 0.9987, cosine 1.0000",
        "nodesBefore": 90,
        "nodesAfter": 30,
        "sizePercent": 26,
        "cached": False,
        "reason": "int8-static is kept: faster.",
    }


def test_that_nothing_is_faster_is_told_with_the_reason() -> None:
    told = summary_of(report(kept=None, cached=True), "fp32")
    assert (told.outcome, told.form, told.cached) == ("NothingFaster", None, True)
    assert told.reason == "int8-static is kept: faster."


@pytest.mark.parametrize("filling", ["x", "ü", "漢", '"', "\n", "\x01", "\\"])
def test_the_longest_reason_still_fits_into_what_a_kubelet_keeps(filling: str) -> None:
    line = failed(f"a{filling}" * 10_000, "auto", MACHINE).line()
    assert len(line.encode()) <= 4096
    assert "\n" not in line
    told = Summary.model_validate(json.loads(line)["optimization"])
    assert len(told.reason) <= REASON_LENGTH
    assert told.outcome == "Failed"


def test_a_node_is_called_by_what_a_result_holds_for() -> None:
    assert node_type(MACHINE.model_copy(update={"threads": 1, "instructions": []})) == "Fast CPU @ 3 GHz, 1 thread"
    assert "amx_int8" in node_type(MACHINE.model_copy(update={"instructions": ["amx_int8", "avx512_vnni"]}))
    assert len(node_type(MACHINE.model_copy(update={"processor": "p" * 900}))) <= 200
