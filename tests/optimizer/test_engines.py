"""Forms of a model on the other engines that are installed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import openclaw
from openclaw.errors import ConfigInvalid, ModelInvalid, NotApplicable
from openclaw.execute import engines
from openclaw.optimizer import candidates
from openclaw.optimizer.engines import recipes
from openclaw.optimizer.measuring.engine import open_engine
from openclaw.optimizer.measuring.rehearsal import rehearse
from openclaw.optimizer.measuring.trial import Trial
from openclaw.optimizer.recipe import Made, Recipe
from optimizer.models import cnn, made, tensor, weight, words

PORTABLE = [engine for engine in engines.installed() if engine == engines.OPENVINO]


def tried(name: str, model: onnx.ModelProto, precision: str, seconds: float) -> Trial:
    recipe = Recipe(name, precision, lambda material, judge: Made(model))
    return Trial(recipe, made=Made(model), rounds=[seconds] * 5, baseline=[1.0] * 5)


def test_the_fastest_forms_of_lower_precision_are_tried_and_none_with_operators_of_onnxruntime_alone() -> None:
    model = cnn()
    own = made([helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")], [tensor("x", 4)], [tensor("y", 4)])
    forms = [
        tried("fp32-passes", model, "fp32", 0.9),
        tried("slow", model, "int8", 0.8),
        tried("fast", model, "int8", 0.4),
        tried("middle", model, "int8", 0.6),
        tried("contrib", own, "int8", 0.1),
    ]
    names = [one.name for one in recipes("openvino", model, forms)]
    assert names == ["exported-openvino", "fp32-passes-openvino", "fast-openvino", "middle-openvino"]


def test_what_runs_on_an_engine_already_is_not_tried_on_it_again() -> None:
    own = tried("fast", cnn(), "int8", 0.4)
    there = tried("bf16-openvino", cnn(), "bf16", 0.3)
    there.recipe = replace(there.recipe, engine="openvino")
    assert [one.name for one in recipes("openvino", cnn(), [own, there])] == ["exported-openvino", "fast-openvino"]


def test_only_recipes_of_the_engines_that_are_asked_for_are_tried() -> None:
    every = candidates.all_recipes()
    assert "bf16-openvino" in {one.name for one in candidates.wanted(every, "auto", ())}
    assert {one.engine for one in candidates.wanted(every, "auto", (), engines=["onnxruntime"])} == {"onnxruntime"}


def test_an_engine_that_is_not_installed_is_refused_with_those_that_are(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = made(nodes, [tensor("x", "N", 8)], [tensor("y", "N", 8)], weights=[weight("w", 8, 8)])
    with pytest.raises(ConfigInvalid, match="engines: 'tensorrt' is not installed; installed: onnxruntime"):
        openclaw.optimize(model, engines=["tensorrt"])


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("engine", ["cuda", "tensorrt"])
def test_a_form_on_an_engine_that_does_not_start_is_not_timed_on_the_cpu(engine: str) -> None:
    model = cnn()
    helper.set_model_props(model, {engines.PROPERTY: engine})
    with pytest.raises(ModelInvalid, match="ExecutionProvider could not be started"):
        open_engine(model, 1)


@pytest.mark.parametrize("engine", PORTABLE)
def test_every_form_is_timed_and_judged_on_another_engine_too(engine: str) -> None:
    model = cnn()
    samples = {"image": np.random.default_rng(1).standard_normal((32, 3, 24, 24)).astype(np.float32)}
    result = openclaw.optimize(model, calibration=samples, accuracy_budget="cosine>=0.5")
    on_engine = {one.name: one for one in result.report.candidates if one.engine == engine}
    assert f"exported-{engine}" in on_engine
    assert any(one.precision == "int8" and one.ratio is not None for one in on_engine.values())
    properties = {one.key: one.value for one in result.model.metadata_props}
    kept = next((one for one in result.report.candidates if one.outcome == "kept"), None)
    assert properties.get(engines.PROPERTY, engines.OWN) == (engines.OWN if kept is None else kept.engine)


@pytest.mark.parametrize("engine", PORTABLE)
def test_a_form_on_another_engine_gives_the_exported_models_answers(engine: str) -> None:
    model = cnn()
    form = next(recipes(engine, model, []))
    rewritten = form.make(None, None).model  # type: ignore[arg-type] - what is exported needs no material
    feed = {"image": np.random.default_rng(1).standard_normal((2, 3, 24, 24)).astype(np.float32)}
    expected = open_engine(model, 1).run(feed)
    assert form.engine == engine
    for name, answer in open_engine(rewritten, 1).run(feed).items():
        np.testing.assert_allclose(answer, expected[name], rtol=1e-4, atol=1e-5)
    assert not model.metadata_props


@pytest.mark.parametrize("engine", PORTABLE)
def test_only_onnxruntime_is_tried_if_only_that_or_only_equal_answers_are_asked_for(engine: str) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = made(nodes, [tensor("x", "N", 8)], [tensor("y", "N", 8)], weights=[weight("w", 8, 8)])

    def tried_on(**options: Any) -> set[str]:
        return {one.engine for one in openclaw.optimize(model, **options).report.candidates}

    assert tried_on(engines=[engines.OWN]) == {engines.OWN}
    assert tried_on(precision="fp32") == {engines.OWN}
    assert tried_on(precision="fp32", engines=[engine]) == {engines.OWN, engine}
    assert tried_on() == {engines.OWN, engine}


@pytest.mark.parametrize("engine", PORTABLE)
def test_a_model_that_ends_the_process_of_an_engine_does_not_end_this_one(engine: str, tmp_path: Path) -> None:
    model = words()
    helper.set_model_props(model, {engines.PROPERTY: engine})
    (text,) = model.graph.input
    with pytest.raises(NotApplicable, match="ended the process that ran it: SIGABRT"):
        rehearse(model, [{text.name: np.array(["a", "b"])}], threads=1, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("engine", PORTABLE)
def test_a_model_of_strings_is_left_to_onnxruntime(engine: str) -> None:
    candidates = {one.name: one for one in openclaw.optimize(words(), engines=[engine]).report.candidates}
    form = candidates[f"exported-{engine}"]
    assert (form.outcome, form.reason) == ("not applicable", "its inputs are strings, which other engines do not take")
