"""What an arena is seen to hold: also where an answer is still there while the next one is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from openclaw.memory.properties import Memory
from openclaw.optimizer.memory.holding import held

SIDE = 512
ANSWER = SIDE * SIDE * 4


def test_the_answer_before_the_last_is_held_too(tmp_path: Path) -> None:
    square = helper.make_tensor_value_info("x", TensorProto.FLOAT, [SIDE, SIDE])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [SIDE, SIDE])
    graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"])], "one", [square], [output])
    path = tmp_path / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    use = held(path, {"x": np.zeros((SIDE, SIDE), np.float32)}, Memory(), threads=1)
    assert use.held >= 2 * ANSWER
