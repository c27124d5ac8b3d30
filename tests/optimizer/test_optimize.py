"""``openclaw.optimize`` from end to end: what is kept, what is refused, and what comes out of bad models."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import openclaw
from openclaw.errors import ConfigInvalid, ModelInvalid, NotApplicable
from openclaw.optimizer import candidates
from openclaw.optimizer.measuring import timing
from openclaw.optimizer.measuring.engine import open_engine
from openclaw.optimizer.optimize import optimize
from openclaw.optimizer.recipe import Judge, Made, Material, Recipe
from optimizer import models


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces what is tried."""

    def replaced(*chosen: Recipe) -> None:
        monkeypatch.setattr(candidates, "all_recipes", lambda: chosen)

    return replaced


# With the recipes alone: what other engines and ways to hold activations gain, is not for sure.
alone = partial(openclaw.optimize, engines=["onnxruntime"], memory="default")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times so little that a test ends soon; where the outcome does not hang on it."""
    monkeypatch.setattr(timing, "HEAT", replace(timing.HEAT, rounds=3, slice_seconds=0.001))
    monkeypatch.setattr(timing, "FINAL", replace(timing.FINAL, slice_seconds=0.001))


def recipe(name: str, model: onnx.ModelProto, precision: str = "fp32") -> Recipe:
    """Makes this model, whatever it is given."""
    return Recipe(name, precision, lambda material, judge: Made(model, {"made": "by a test"}))


def once() -> onnx.ModelProto:
    """What ``models.wasteful`` computes, with one product."""
    return models.wasteful(1)


def off_by(factor: float) -> onnx.ModelProto:
    """The same, and wrong by a factor."""
    model = once()
    weights = numpy_helper.to_array(model.graph.initializer[0]) * np.float32(factor)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
    return model


def rotated() -> onnx.ModelProto:
    """The same, with answers that point elsewhere."""
    model = once()
    model.graph.initializer[0].CopyFrom(models.weight("w", 256, 256, seed=5))
    return model


def rows(folder: Path, width: int = 256, name: str = "x") -> Path:
    path = folder / "rows.npz"
    np.savez(path, **{name: np.random.default_rng(1).standard_normal((32, width)).astype(np.float32)})
    return path


SLOW = {"x": (64, 256)}


def outcome(report: object, name: str) -> tuple[str, str]:
    found = next(one for one in report.candidates if one.name == name)  # type: ignore[attr-defined]
    return found.outcome, found.reason


def test_a_form_that_is_faster_is_kept_with_its_figures(recipes: Callable[..., None]) -> None:
    recipes(recipe("once", once()))
    result = alone(models.wasteful(), shapes=SLOW)
    report = result.report
    assert report.kept == "once"
    assert result.model == once()
    found = report.candidates[0]
    assert found.outcome == "kept"
    assert found.ratio is not None
    assert found.ratio.median < 0.9
    assert found.ratio.lower <= found.ratio.median <= found.ratio.upper < 1
    assert found.notes == {"made": "by a test"}
    assert report.baseline is not None
    assert report.baseline.rounds >= 11
    assert report.result.nodes == 1
    assert report.shapes == [{"x": [64, 256]}]
    assert "once is kept" in report.verdict


def test_a_slower_form_leaves_the_exported_model_as_it_was(recipes: Callable[..., None]) -> None:
    exported = once()
    recipes(recipe("slow", models.wasteful()))
    result = alone(exported, shapes=SLOW)
    assert result.model == exported
    assert result.report.kept is None
    assert outcome(result.report, "slow")[0] == "refused"
    assert "it is slower" in outcome(result.report, "slow")[1]
    assert "The exported model is kept" in result.report.verdict


def test_a_form_with_wrong_answers_is_refused_however_fast(recipes: Callable[..., None]) -> None:
    recipes(recipe("wrong", off_by(1.001)))
    result = alone(models.wasteful(), shapes=SLOW)
    assert result.report.kept is None
    assert "its answers are wrong: output 'y' differs by" in outcome(result.report, "wrong")[1]


def test_a_form_that_onnxruntime_then_answers_wrongly_by_itself_is_refused() -> None:
    # It makes the zeros of a Pad part of a MaxPool, in which none can win, once nobody else reads what is padded.
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["padded"]),
        helper.make_node("Relu", ["padded"], ["unread"]),
        helper.make_node("MaxPool", ["padded"], ["y"], kernel_shape=[2]),
    ]
    pads = numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 1]), "pads")
    shapes = [models.tensor("x", 2, 4, 6)], [models.tensor("y", 2, 4, 6)]
    model = models.made(nodes, *shapes, weights=[pads])
    result = alone(model, precision="fp32")
    assert result.model.graph.node == model.graph.node
    (candidate,) = [each for each in result.report.candidates if each.name == "fp32-passes"]
    assert (candidate.outcome, candidate.reason.startswith("its answers are wrong")) == ("refused", True)


def test_a_lower_precision_within_the_budget_is_kept_and_one_over_it_is_not(
    recipes: Callable[..., None], tmp_path: Path
) -> None:
    recipes(recipe("near", off_by(1.001), "int8"), recipe("far", rotated(), "int8"))
    result = alone(models.wasteful(), calibration=rows(tmp_path), shapes=SLOW)
    report = result.report
    assert report.kept == "near"
    assert report.budget == "cosine>=0.99,cosine-worst>=0.98"
    assert report.judged_on == "16 samples of held-out data"
    kept, refused = report.candidates
    assert kept.accuracy is not None
    assert kept.accuracy.values["cosine"] > 0.999
    assert refused.outcome == "refused"
    assert refused.reason.startswith("over the accuracy budget: cosine is ")
    assert refused.accuracy is not None, "the report shows how far off it is"
    assert refused.latency is not None, "and how fast"


def test_the_budget_of_the_user_decides(recipes: Callable[..., None], tmp_path: Path) -> None:
    recipes(recipe("near", off_by(1.001), "int8"))
    strict = alone(models.wasteful(), calibration=rows(tmp_path), shapes=SLOW, accuracy_budget="relative<=1e-5")
    assert strict.report.kept is None
    assert "relative is" in outcome(strict.report, "near")[1]


def test_the_metric_of_the_user_decides(recipes: Callable[..., None], tmp_path: Path) -> None:
    def signs(reference: dict[str, np.ndarray], candidate: dict[str, np.ndarray]) -> float:
        return float(np.mean(np.sign(reference["y"]) == np.sign(candidate["y"])))

    recipes(recipe("negated", off_by(-1.0), "int8"), recipe("scaled", off_by(3.0), "int8"))
    result = alone(
        models.wasteful(), calibration=rows(tmp_path), shapes=SLOW, metric=signs, accuracy_budget="metric>=0.99"
    )
    assert result.report.kept == "scaled"
    assert "metric is 0 and must be >= 0.99" in outcome(result.report, "negated")[1]


def metric_that_turns(good: int) -> Callable[..., float]:
    """A metric that is satisfied so many times."""
    told = iter([1.0] * good)
    return lambda reference, candidate: next(told, 0.0)


def test_what_fails_the_last_check_leaves_the_exported_model(recipes: Callable[..., None], tmp_path: Path) -> None:
    recipes(recipe("near", off_by(1.001), "int8"))
    given = {"calibration": rows(tmp_path), "shapes": SLOW, "accuracy_budget": "metric>=0.5"}
    result = alone(models.wasteful(), metric=metric_that_turns(1), **given)  # type: ignore[arg-type]
    assert result.report.kept is None
    assert result.model == models.wasteful()
    assert outcome(result.report, "near") == ("refused", "the last check failed: metric is 0 and must be >= 0.5")
    assert "near was the best, but the last check failed: metric is 0" in result.report.verdict


def test_a_form_that_breaks_onnx_rules_in_the_end_leaves_the_exported_model(recipes: Callable[..., None]) -> None:
    shared = once()

    def spoils(material: Material, judge: Judge) -> Made:
        shared.graph.node[0].input[0] = "nowhere"
        raise NotApplicable("it wrote into what another recipe had made")

    recipes(recipe("once", shared), Recipe("spoils", "fp32", spoils))
    result = alone(models.wasteful(), shapes=SLOW)
    assert result.report.kept is None
    assert result.model == models.wasteful()
    assert outcome(result.report, "once")[1].startswith("the last check failed: the result breaks ONNX's rules")


@pytest.mark.usefixtures("quick")
def test_what_judges_was_not_there_to_calibrate_on(recipes: Callable[..., None], tmp_path: Path) -> None:
    seen: list[np.ndarray] = []

    def make(material: Material, judge: Judge) -> Made:
        seen.extend(row for feed in material.calibration for row in feed["x"])
        return Made(off_by(1.001))

    judged: list[np.ndarray] = []

    def metric(reference: dict[str, np.ndarray], candidate: dict[str, np.ndarray]) -> float:
        judged.append(reference["y"])
        return 1.0

    recipes(Recipe("looks", "int8", make))
    alone(models.wasteful(), calibration=rows(tmp_path), shapes=SLOW, metric=metric, accuracy_budget="metric>=0.5")
    answers = {row.tobytes() for row in open_engine(models.wasteful(), 2).run({"x": np.stack(seen)})["y"].round(3)}
    assert len(seen) == 16
    assert judged
    assert not answers & {row.tobytes() for rows in judged for row in rows.round(3)}


@pytest.mark.usefixtures("quick")
def test_the_judge_of_recipes_gives_0_for_the_same_and_more_for_worse(
    recipes: Callable[..., None], tmp_path: Path
) -> None:
    found: list[float] = []

    def make(material: Material, judge: Judge) -> Made:
        found.extend(judge(model) for model in (material.exported, off_by(1.001), rotated()))
        raise NotApplicable("it only looked")

    recipes(Recipe("asks", "int8", make))
    result = alone(models.wasteful(), calibration=rows(tmp_path), shapes=SLOW, accuracy_budget="relative<=0.01")
    assert outcome(result.report, "asks") == ("not applicable", "it only looked")
    assert found[0] == 0
    assert 0 < found[1] < 1 < found[2]


def test_without_data_nothing_of_lower_precision_is_tried(recipes: Callable[..., None]) -> None:
    recipes(recipe("once", once()), recipe("rough", off_by(1.001), "int8"))
    result = alone(models.wasteful(), shapes=SLOW)
    assert result.report.kept == "once"
    assert outcome(result.report, "rough") == (
        "not applicable",
        "without calibration data its loss of accuracy could not be seen",
    )
    assert any("No calibration data was given" in note for note in result.report.notes)


@pytest.mark.parametrize("asked", [{"precision": "int8"}, {"accuracy_budget": "cosine>=0.9"}])
def test_without_data_a_lower_precision_that_was_asked_for_is_judged_on_random_inputs(
    recipes: Callable[..., None], asked: dict[str, str]
) -> None:
    recipes(
        recipe("near", off_by(1.001), "int8"),
        recipe("far", rotated(), "int8"),
        replace(recipe("needs", off_by(1.002), "int8"), needs_calibration=True),
    )
    result = alone(models.wasteful(), shapes=SLOW, **asked)  # type: ignore[arg-type]
    assert result.report.kept == "near"
    assert result.report.judged_on is not None
    assert "random inputs" in result.report.judged_on
    assert any("random inputs, which say little" in note for note in result.report.notes)
    assert outcome(result.report, "far")[0] == "refused"
    assert outcome(result.report, "needs") == ("not applicable", "it needs calibration data, and none was given")


def test_fp32_tries_nothing_else_even_with_data(recipes: Callable[..., None], tmp_path: Path) -> None:
    recipes(recipe("once", once()), recipe("rough", off_by(1.001), "int8"))
    result = alone(models.wasteful(), shapes=SLOW, precision="fp32", calibration=rows(tmp_path))
    assert [one.name for one in result.report.candidates] == ["once"]


def test_a_target_that_the_default_meets_is_met_without_losing_accuracy(
    recipes: Callable[..., None], tmp_path: Path
) -> None:
    recipes(recipe("rough", off_by(1.001), "int8"))
    data = rows(tmp_path)
    easy = alone(models.wasteful(), calibration=data, shapes=SLOW, target_latency=10.0)
    assert easy.report.kept is None
    hard = alone(models.wasteful(), calibration=data, shapes=SLOW, target_latency=1e-9)
    assert hard.report.kept == "rough"
    assert "is missed" in hard.report.verdict


@pytest.mark.usefixtures("quick")
def test_a_recipe_that_fails_costs_only_itself(recipes: Callable[..., None]) -> None:
    def breaks(material: Material, judge: Judge) -> Made:
        raise ZeroDivisionError("in the middle")

    invalid = once()
    invalid.graph.node[0].input[0] = "nowhere"
    recipes(
        Recipe("breaks", "fp32", breaks),
        recipe("invalid", invalid),
        recipe("unknown", models.foreign()),
        recipe("same", models.wasteful()),
        recipe("once", once()),
    )
    report = alone(models.wasteful(), shapes=SLOW).report
    assert outcome(report, "breaks") == ("refused", "it failed: ZeroDivisionError: in the middle")
    assert "breaks ONNX's rules" in outcome(report, "invalid")[1]
    assert outcome(report, "unknown")[0] == "refused"
    assert outcome(report, "same") == ("not applicable", "it made the same model as the exported one")
    assert report.kept == "once"


@pytest.mark.usefixtures("quick")
def test_a_form_that_only_works_for_the_timed_shape_is_refused(recipes: Callable[..., None]) -> None:
    fixed = once()
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 64
    recipes(recipe("fixed", fixed))
    report = alone(models.wasteful(), shapes=SLOW).report
    assert outcome(report, "fixed")[0] == "refused"
    assert report.kept is None


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (models.sequence(), "input 'parts' is a sequence"),
        (models.any_rank(), "input 'x' may have any number of dimensions"),
        (models.dice(), "it gives different answers to the same inputs"),
    ],
)
def test_what_cannot_be_compared_passes_through_untouched(model: onnx.ModelProto, reason: str) -> None:
    result = optimize(model)
    assert result.model == model
    assert result.report.untouched is not None
    assert result.report.untouched.startswith(reason)
    assert result.report.verdict.startswith("Passed through untouched, because")


def test_more_than_2_gib_passes_through_with_its_weights_beside(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(models.mlp(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with (tmp_path / "weights.bin").open("r+b") as file:
        file.truncate(2**31 + 10)
    result = optimize(path)
    assert result.report.untouched is not None
    assert "2 GiB" in result.report.untouched
    assert result.origin == (path, tmp_path / "weights.bin")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "model",
    [
        models.branching(),
        models.looping(),
        models.scanning(),
        models.words(),
        models.unsorted(),
        models.embedding(),
        models.cnn(),
    ],
    ids=lambda model: model.graph.node[0].op_type,
)
def test_models_of_every_kind_come_out_valid_and_give_the_same_answers(model: onnx.ModelProto) -> None:
    result = optimize(model, precision="fp32")
    onnx.checker.check_model(result.model)
    assert result.report.untouched is None
    engine, before = open_engine(result.model, 1), open_engine(model, 1)
    feed: dict[str, np.ndarray] = {
        spec.name: np.full([2 if size < 0 else size for size in spec.shape], "a" if spec.datatype == "BYTES" else 1)
        .astype(spec.dtype)
        for spec in before.signature.inputs
    }  # fmt: skip
    for name, array in before.run(feed).items():
        other = engine.run(feed)[name]
        assert np.array_equal(array, other) if array.dtype.kind != "f" else np.allclose(array, other, rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (models.cyclic(), "has a cycle"),
        (models.foreign(), "onnxruntime .* cannot run it"),
        (models.made([], [], []), "holds no graph with outputs"),
        (
            models.made(
                [helper.make_node("Relu", ["x"], ["y"])], [models.tensor("x", 4)], [models.tensor("y", 4)],
                opsets=(("", 999),),
            ),
            "breaks ONNX's rules|cannot run it",
        ),
        (
            models.made(
                [helper.make_node("Relu", ["x"], ["y"])],
                [models.tensor("x", 4, kind=TensorProto.STRING)], [models.tensor("y", 4, kind=TensorProto.STRING)],
            ),
            "breaks ONNX's rules|cannot run it",
        ),
    ],
)  # fmt: skip
def test_a_model_that_cannot_run_is_refused_with_a_sentence(model: onnx.ModelProto, told: str) -> None:
    with pytest.raises(ModelInvalid, match=told):
        optimize(model)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"precision": "int7"}, "precision: it is 'int7'; allowed: auto, fp32, int8, int4, bf16"),
        ({"target_latency": 0}, "target_latency: it is 0 s and must be above 0"),
        ({"time_limit": 0}, "time_limit: it is 0 s and must be above 0"),
        ({"threads": 0}, "threads: it is 0; allowed is 1 and more"),
        ({"only": ["none"]}, "only: there is no recipe 'none'; there are "),
        ({"metric": "numpy:mean"}, "metric: say with the accuracy budget what it must reach"),
        ({"calibration": "/nowhere.npz"}, "calibration: there is nothing at /nowhere.npz"),
        ({"shapes": {"z": (1,)}}, "shapes: there is no input 'z'"),
        ({"accuracy_budget": "fast"}, "accuracy_budget: 'fast' in 'fast' is no bound"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_by_its_name(arguments: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        optimize(models.mlp(), **arguments)  # type: ignore[arg-type]
    assert str(caught.value).startswith(told)


@pytest.mark.usefixtures("quick")
def test_what_there_is_no_time_for_is_left_out_and_what_was_tried_is_still_judged(recipes: Callable[..., None]) -> None:
    def takes(material: Material, judge: Judge) -> Made:
        deadline = time.monotonic() + 2.5
        while time.monotonic() < deadline:
            judge(material.exported)
        return Made(once())

    def unfit(material: Material, judge: Judge) -> Made:
        raise NotApplicable("it is for other models")

    recipes(
        Recipe("takes", "fp32", takes),
        Recipe("unfit", "int8", unfit),
        recipe("first", off_by(1.001), "int8"),
        recipe("late", off_by(1.002), "int8"),
    )
    result = alone(models.wasteful(), shapes=SLOW, precision="int8", time_limit=3.0)
    assert result.report.kept in ("takes", "first")
    assert outcome(result.report, "first")[0] in ("kept", "refused"), "one of lower precision is tried in any case"
    assert outcome(result.report, "late") == ("not applicable", "there was no time left to try it (time limit 3 s)")


def test_calibration_data_may_be_arrays(recipes: Callable[..., None]) -> None:
    recipes(recipe("near", off_by(1.001), "int8"))
    samples = {"x": np.random.default_rng(1).standard_normal((32, 256)).astype(np.float32)}
    result = optimize(models.wasteful(), calibration=samples, shapes=SLOW)
    assert result.report.judged_on == "16 samples of held-out data"
    with pytest.raises(ConfigInvalid, match="calibration: the model has no input 'z'"):
        optimize(models.wasteful(), calibration={"z": samples["x"]})
