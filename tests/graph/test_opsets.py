"""Models of older operator sets, which many exporters write, end as small as those of new ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from benchmarks.graph.families import FAMILIES, Family
from benchmarks.graph.nodes import count, extended
from onnx import helper, numpy_helper

from graph.building import Drawing
from graph.oracle import assert_close, assert_lossless, operators, run_plainly
from openclaw.errors import NotApplicable
from openclaw.optimizer.lossless import CONVERTED, finished, proven, rewritten
from openclaw.optimizer.model.opset import SMALL, opset_of, raised
from openclaw.optimizer.precision import RECIPES
from openclaw.optimizer.recipe import Made, Material
from optimizer import models
from optimizer.small_models import VNNI

ENCODERS = [family for family in FAMILIES if family.name in ("bert", "minilm")]


def older(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same model as exporters wrote it in an older operator set: before 13 axes are attributes."""
    form = onnx.ModelProto()
    form.CopyFrom(model)
    form.opset_import[0].version = opset
    weights = {tensor.name: tensor for tensor in form.graph.initializer}
    for node in form.graph.node:
        if node.op_type in ("Unsqueeze", "ReduceSum") and opset < 13:
            axes = numpy_helper.to_array(weights[node.input.pop()])
            node.attribute.append(helper.make_attribute("axes", axes.tolist()))
    onnx.checker.check_model(form)
    return form


@pytest.mark.parametrize("opset", [11, 12, 13, 14, 16])
@pytest.mark.parametrize("family", ENCODERS, ids=lambda family: family.name)
def test_encoders_of_older_operator_sets_have_no_more_nodes_than_onnxruntime_leaves(
    family: Family, opset: int, tmp_path: Path
) -> None:
    model = older(family.build(small=True), opset)
    path = tmp_path / "exported.onnx"
    onnx.save(model, path)
    after = finished(rewritten(model)).model
    onnx.checker.check_model(after, full_check=True)
    left = operators(after)
    assert count(after) <= count(extended(path))
    assert left.count("Attention") == operators(model).count("Softmax")
    assert "ReduceMean" not in left
    newest = finished(rewritten(family.build(small=True))).model
    assert count(after) == count(newest)
    feed = family.feeds(2, small=True)[0]
    for wanted, found in zip(run_plainly(model, feed), run_plainly(after, feed), strict=True):
        assert_close(found, wanted, "output")


@pytest.mark.parametrize("opset", [11, 14])
def test_int8_of_an_older_operator_set_is_that_of_the_newest(opset: int, tmp_path: Path) -> None:
    family = ENCODERS[0]
    model = older(family.build(small=True), opset)
    fused = rewritten(model).model
    feeds = family.feeds(2, count=2, small=True)
    given = Material(model, fused, feeds, feeds[:1], VNNI, 1, tmp_path)
    (recipe,) = [one for one in RECIPES if one.name == "int8-matrices"]
    found = recipe.make(given, lambda form: 0.0)
    newest = family.build(small=True)
    expected = recipe.make(replace(given, exported=newest, fused=rewritten(newest).model), lambda form: 0.0)
    assert operators(found.model) == operators(expected.model)
    assert "Softmax" not in operators(found.model)


def test_what_is_given_out_tells_of_the_conversion() -> None:
    made = rewritten(older(ENCODERS[0].build(small=True), 13))
    assert made.notes[CONVERTED] == "13, converted to 17"
    assert opset_of(made.model) == 17


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_layer_normalization_is_found_where_axes_are_an_input(opset: int) -> None:
    draw = Drawing(opset=opset)
    x = draw.input("x", ["N", 3, 8])
    axes = draw.constant([-1], np.int64)
    centred = draw.add("Sub", x, draw.add("ReduceMean", x, axes))
    variance = draw.add("ReduceMean", draw.add("Pow", centred, draw.constant(2.0)), axes)
    y = draw.add("Div", centred, draw.add("Sqrt", draw.add("Add", variance, draw.constant(1e-5))))
    found, _ = assert_lossless(draw.model(draw.add("Add", draw.add("Mul", y, draw.weight(8)), draw.weight(8))))
    assert operators(found) == ["LayerNormalization"]


def test_a_model_that_gains_no_node_by_it_stays_in_its_operator_set() -> None:
    model = older(models.cnn(), 11)
    model.graph.node.append(helper.make_node("Softmax", ["y"], ["z"]))
    model.graph.output[0].name = "z"
    made = rewritten(model)
    assert opset_of(made.model) == 11
    assert CONVERTED not in made.notes


def normalized(opset: int) -> onnx.ModelProto:
    draw = Drawing(opset=opset)
    x = draw.input("x", ["N", 3, 64])
    centred = draw.add("Sub", x, draw.add("ReduceMean", x, axes=[-1]))
    variance = draw.add("ReduceMean", draw.add("Mul", centred, centred), axes=[-1])
    y = draw.add("Div", centred, draw.add("Sqrt", draw.add("Add", variance, draw.constant(1e-5))))
    y = draw.add("Add", draw.add("Mul", y, draw.weight(64)), draw.weight(64))
    return draw.model(draw.add("MatMul", draw.add("Identity", y), draw.weight(64, 64)))


def test_a_model_that_cannot_be_converted_is_rewritten_as_it_is() -> None:
    model = normalized(14)
    body = [helper.make_node("Neg", ["a"], ["b"])]
    model.functions.append(helper.make_function("mine", "Negated", ["a"], ["b"], body, [helper.make_opsetid("", 14)]))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.graph.node.append(helper.make_node("Negated", [model.graph.output[0].name], ["negated"], domain="mine"))
    model.graph.output[0].name = "negated"
    made = rewritten(model)
    assert "Identity" not in operators(made.model)
    assert "ReduceMean" in operators(made.model)
    assert opset_of(made.model) == 14


def test_a_conversion_that_changes_an_answer_leaves_the_model_in_its_operator_set() -> None:
    model = normalized(14)
    made, form = proven(model, lambda form: opset_of(form) == 14)
    assert isinstance(made, Made)
    assert made.model is form
    assert opset_of(form) == 14
    assert "Identity" not in operators(form)
    made, form = proven(model, lambda form: False)
    assert form is model


def test_a_converted_model_keeps_weights_inputs_outputs_and_properties() -> None:
    model = normalized(11)
    helper.set_model_props(model, {"author": "somebody"})
    model.graph.input.append(helper.make_tensor_value_info(model.graph.initializer[-1].name, 1, [64, 64]))
    assert any(tensor.ByteSize() > SMALL for tensor in model.graph.initializer)
    later = raised(model, 17)
    assert opset_of(later) == 17
    for name in ("input", "output", "initializer"):
        assert list(getattr(later.graph, name)) == list(getattr(model.graph, name))
    assert later.metadata_props == model.metadata_props
    feed = {"x": np.random.default_rng(0).standard_normal((2, 3, 64)).astype(np.float32)}
    assert_close(run_plainly(later, feed)[0], run_plainly(model, feed)[0], "output")
    assert opset_of(model) == 11


def test_what_the_converter_makes_of_branches_and_softmax_answers_as_before() -> None:
    inner = Drawing(opset=11, prefix="yes")
    yes = inner.body(inner.add("Softmax", inner.add("Squeeze", "x", axes=[0]), axis=1))
    other = Drawing(opset=11, prefix="no")
    no = other.body(other.add("Squeeze", "x", axes=[0]))
    draw = Drawing(opset=11)
    x, chosen = draw.input("x", [1, 2, 3, 4]), draw.input("chosen", [], np.bool_)
    model = draw.model(draw.add("If", chosen, then_branch=yes, else_branch=no))
    later = raised(model, 17)
    for flag in (True, False):
        feed = {x: np.random.default_rng(0).standard_normal((1, 2, 3, 4)).astype(np.float32), chosen: np.array(flag)}
        assert_close(run_plainly(later, feed)[0], run_plainly(model, feed)[0], "output")


def test_an_operator_that_the_converter_does_not_know_is_told() -> None:
    model = models.cnn()
    model.graph.node[0].op_type = "Unheard"
    with pytest.raises(NotApplicable, match="cannot be converted to 17"):
        raised(older_unchecked(model, 11), 17)


def older_unchecked(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model with another number on it."""
    model.opset_import[0].version = opset
    return model
