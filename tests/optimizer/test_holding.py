"""Sessions that are measured: what their arena is seen to hold, and whether their threads spin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from benchmarks.graph.families import FAMILIES
from onnx import TensorProto, helper

from openclaw.memory.choice import candidates
from openclaw.memory.properties import Memory
from openclaw.optimizer.measuring.engine import open_session
from openclaw.optimizer.memory import holding
from openclaw.optimizer.memory.holding import held

SIDE = 512
ANSWER = SIDE * SIDE * 4


def model(folder: Path) -> Path:
    """Takes and gives FP32[512, 512]."""
    square = helper.make_tensor_value_info("x", TensorProto.FLOAT, [SIDE, SIDE])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [SIDE, SIDE])
    graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"])], "one", [square], [output])
    path = folder / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_the_answer_before_the_last_is_held_too(tmp_path: Path) -> None:
    use = held(model(tmp_path), {"x": np.zeros((SIDE, SIDE), np.float32)}, Memory(), threads=1)
    assert use.held >= 2 * ANSWER


def test_what_is_held_is_what_a_server_holds_that_runs_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bert = next(family for family in FAMILIES if family.name == "bert")
    feed, path = bert.feeds(16, small=True)[0], tmp_path / "bert.onnx"
    onnx.save(bert.build(small=True), path)
    pattern = Memory(candidates()["pattern"])
    found = held(path, feed, pattern, threads=1)
    monkeypatch.setattr(holding, "_RUNS", 8)
    assert held(path, feed, pattern, threads=1).held == found.held


@pytest.mark.parametrize("spinning", [False, True])
def test_threads_spin_while_a_run_lasts_or_not_at_all(spinning: bool, tmp_path: Path) -> None:
    told = open_session(model(tmp_path), 2, spinning=spinning).get_session_options()
    entry = "session.force_spinning_stop" if spinning else "session.intra_op.allow_spinning"
    assert told.get_session_config_entry(entry) == ("1" if spinning else "0")
