"""The benchmark of graphs in segments: where it cuts, and that the segments are the graph."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from benchmarks.memory.splitting import cheapest, held, segments
from onnx import TensorProto, helper, numpy_helper, shape_inference

from openclaw.memory.arena import Arena


def bottleneck() -> onnx.ModelProto:
    """Wide, narrow, wide; the input is read again at the end."""
    drawn = np.random.default_rng(0)
    widths = [64, 4096, 16, 4096, 64]
    weights = [
        numpy_helper.from_array(drawn.normal(size=size).astype(np.float32) / 64, f"w{number}")
        for number, size in enumerate(pairwise(widths))
    ]
    nodes, value = [], "x"
    for number in range(4):
        nodes += [helper.make_node("MatMul", [value, f"w{number}"], [f"m{number}"])]
        nodes += [helper.make_node("Relu", [f"m{number}"], [f"r{number}"])]
        value = f"r{number}"
    nodes.append(helper.make_node("Add", [value, "x"], ["y"]))
    shape = [8, 64]
    graph = helper.make_graph(
        nodes,
        "bottleneck",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    return shape_inference.infer_shapes(model)


def run(path: Path, feed: dict[str, Any]) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    given = {each.name: feed[each.name] for each in session.get_inputs()}
    return dict(zip(names, session.run(names, given), strict=True))


def test_a_graph_is_cut_where_the_fewest_bytes_live() -> None:
    (cut,) = cheapest(bottleneck(), 2)
    assert (cut.tensors, cut.size) in [(("m1",), 8 * 16 * 4), (("r1",), 8 * 16 * 4)]


def test_the_segments_answer_as_the_graph_does(tmp_path: Path) -> None:
    model = bottleneck()
    feed = {"x": np.random.default_rng(1).normal(size=(8, 64)).astype(np.float32)}
    paths = segments(model, cheapest(model, 3), folder=tmp_path)
    assert len(paths) == 3
    have = dict(feed)
    for path in paths:
        have |= run(path, have)
    onnx.save(model, tmp_path / "whole.onnx")
    np.testing.assert_allclose(have["y"], run(tmp_path / "whole.onnx", feed)["y"], rtol=1e-5)


def test_what_segments_hold_is_what_their_largest_needs(tmp_path: Path) -> None:
    model = bottleneck()
    feed = {"x": np.zeros((8, 64), np.float32)}
    wide = 8 * 4096 * 4
    sizes = held(segments(model, cheapest(model, 2), folder=tmp_path), feed, Arena())
    assert wide <= sizes.held <= 3 * wide
