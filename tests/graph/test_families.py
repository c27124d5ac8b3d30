"""Whole transformers, small: every attention is found, and little else is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from benchmarks.graph.families import FAMILIES, Family
from benchmarks.graph.nodes import count, extended, ways

from graph.oracle import assert_close, operators, optimized, run_plainly

TRANSFORMERS = [family for family in FAMILIES if family.name in ("bert", "minilm", "vit")]


@pytest.mark.parametrize("family", TRANSFORMERS, ids=lambda family: family.name)
def test_every_attention_of_an_encoder_is_one_operator(family: Family) -> None:
    model = family.build(small=True)
    feeds = family.feeds(2, small=True)
    after, _ = optimized(model)
    left = operators(after)
    assert left.count("Attention") == operators(model).count("Softmax")
    assert "Softmax" not in left
    for feed in feeds:
        for wanted, found in zip(run_plainly(model, feed), run_plainly(after, feed), strict=True):
            assert_close(found, wanted, "output")


def test_a_bert_has_nine_nodes_a_layer_and_thirteen_around() -> None:
    family = next(one for one in TRANSFORMERS if one.name == "bert")
    model = family.build(small=True)
    layers = operators(model).count("Softmax")
    after, _ = optimized(model, final=True)
    assert len(after.graph.node) == 9 * layers + 13  # embeddings, and the mask, which is computed once
    masked = dict(family.feeds(2, small=True)[0])
    name = next(name for name in masked if "mask" in name)
    masked[name] = np.zeros_like(masked[name])
    for wanted, found in zip(run_plainly(model, masked), run_plainly(after, masked), strict=True):
        assert_close(found, wanted, "output where all is masked")


def unsqueezed_twice(model: onnx.ModelProto) -> onnx.ModelProto:
    """A BERT whose padding mask gets its two further dimensions one by one, as older exporters write it."""
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Unsqueeze" and node.input[0] == "attention_mask":
            for axis, (source, result) in enumerate([(node.input[0], "between"), ("between", node.output[0])], 1):
                axes = onnx.numpy_helper.from_array(np.array([axis]), f"axis{axis}")
                model.graph.initializer.append(axes)
                nodes.append(onnx.helper.make_node("Unsqueeze", [source, axes.name], [result], name=f"further{axis}"))
        else:
            nodes.append(node)
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
    return model


def test_a_mask_in_two_steps_leaves_the_fewest_nodes_that_answer_every_mask_rightly() -> None:
    """The optimizer of onnxruntime.transformers only counts the ones of a mask, so one with holes is answered wrong."""
    family = next(one for one in TRANSFORMERS if one.name == "bert")
    model = unsqueezed_twice(family.build(small=True))
    feed = dict(family.feeds(2, small=True)[0])
    left = ways(family, model, feed, small=True, threads=1)
    after, _ = optimized(model, final=True)
    assert "transformers, level 0" not in left
    assert count(after) <= min(left.values())
    feed["attention_mask"] = (np.arange(feed["attention_mask"].size) % 2).reshape(feed["attention_mask"].shape)
    for wanted, found in zip(run_plainly(model, feed), run_plainly(after, feed), strict=True):
        assert_close(found, wanted, "output where the mask has holes")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_file_has_no_more_nodes_than_onnxruntime_would_leave(family: Family, tmp_path: Path) -> None:
    model = family.build(small=True)
    path = tmp_path / "exported.onnx"
    onnx.save(model, path)
    after, _ = optimized(model, final=True)
    assert count(after) <= count(extended(path))
    feed = family.feeds(2, small=True)[0]
    for wanted, found in zip(run_plainly(model, feed), run_plainly(after, feed), strict=True):
        assert_close(found, wanted, "output")
