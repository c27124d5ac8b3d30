"""Control groups of the benchmark: what they count, limit and tell."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from subprocess import run

import numpy as np
import onnx
import pytest
from benchmarks.memory.case import told
from benchmarks.memory.groups import group, inside, kills, most, parent_group
from onnx import TensorProto, helper

MIB = 1 << 20


@pytest.fixture
def parent() -> Path:
    """Where control groups of memory can be made."""
    found = parent_group()
    if found is not None:
        return found
    message = "control groups of memory cannot be made here"
    if "CI" in os.environ and os.getuid() == 0:
        pytest.fail(message)
    pytest.skip(message)


def test_a_group_counts_an_engine_from_its_first_instruction(parent: Path, tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1024]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    model, feed = tmp_path / "model.onnx", tmp_path / "feed.npz"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    np.savez(feed, x=np.ones((1024, 1024), np.float32))
    with group(parent, "test") as cell:
        found = told([str(model), str(feed), "--seconds", "0.05"], cell=cell)
        assert kills(cell) == 0
    assert cell is not None
    assert not cell.exists()
    # A large part of it is what importing numpy and onnxruntime takes.
    assert found["anonymous"] > 16 * MIB
    assert found["group_peak"] >= 0.9 * found["anonymous"]


def test_a_group_ends_a_process_that_takes_more_and_tells_so(parent: Path) -> None:
    with group(parent, "test", limit=64 * MIB) as cell:
        done = run(inside([sys.executable, "-c", "b'x' * (1 << 28)"], cell), check=False, timeout=60)
        assert done.returncode
        assert kills(cell) == 1
        peak = most(cell)
    assert peak is not None
    assert peak <= 64 * MIB


def test_without_a_group_a_command_is_as_it_was_and_nothing_is_told(tmp_path: Path) -> None:
    with group(None, "test") as cell:
        assert cell is None
    assert inside(["true"], None) == ["true"]
    assert most(None) is None
    assert kills(None) is None
    assert most(tmp_path) is None
    assert kills(tmp_path) is None


@pytest.mark.parametrize(
    ("events", "counts"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ],
)
def test_both_versions_of_groups_are_read(events: str, counts: str, tmp_path: Path) -> None:
    (tmp_path / events).write_text(counts)
    (tmp_path / ("memory.peak" if events == "memory.events" else "memory.max_usage_in_bytes")).write_text("4096\n")
    assert kills(tmp_path) == 2
    assert most(tmp_path) == 4096
