"""Ranges of values on the calibration data, and how much of a model a recipe reaches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from openclaw.errors import NotApplicable
from openclaw.graph.passes import FINAL
from openclaw.optimizer import lossless
from openclaw.optimizer.lossless import PLAIN, passes_recipe
from openclaw.optimizer.precision import RECIPES, ranges, static
from openclaw.optimizer.precision.reach import matrices_share, worth_matrices
from optimizer.small_models import Drawing, convolutional, feeds_of, material, perceptron

BY_NAME = {recipe.name: recipe for recipe in RECIPES}


def mixed(*, channels: int) -> object:
    """A convolution of ``channels`` on 16 x 16, and a product of 32 with 32."""
    draw = Drawing()
    x = draw.node("Conv", "x", draw.weight(channels, 3, 3, 3), kernel_shape=[3, 3], pads=[1] * 4)
    x = draw.node("GlobalAveragePool", draw.node("Conv", x, draw.weight(32, channels, 1, 1), kernel_shape=[1, 1]))
    draw.node("MatMul", draw.node("Flatten", x), draw.weight(32, 32), output="y")
    return draw.model({"x": ["N", 3, 16, 16]})


def test_bounds_are_exact_and_the_other_ranges_lie_within_them() -> None:
    model, feeds = convolutional(), feeds_of(convolutional())
    found = ranges.spreads(model, static.OPERATORS, feeds, threads=1)
    assert found["x"].low == min(feed["x"].min() for feed in feeds)
    assert found["x"].high == max(feed["x"].max() for feed in feeds)
    whole = ranges.ranges(found, "minmax")
    for method in ("percentile", "entropy"):
        chosen = ranges.ranges(found, method)
        assert set(chosen.keys()) == set(whole.keys()) == set(found)
        for name in found:
            low, high = (float(bound) for bound in chosen[name].range_value)
            widest = max(abs(found[name].low), abs(found[name].high))
            assert -widest * 1.02 <= low <= high <= widest * 1.02


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_a_number_far_out_is_left_out_of_the_range(method: str) -> None:
    numbers = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    found = {"x": ranges.Spread(np.float32(numbers.min()), np.float32(50), [numbers, np.array([50], np.float32)])}
    assert ranges.ranges(found, "minmax")["x"].range_value[1] == 50
    assert 3 < ranges.ranges(found, method)["x"].range_value[1] < 50


def test_no_more_than_some_numbers_stand_for_a_large_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "NUMBERS", 64)
    feeds = feeds_of(convolutional())
    found = ranges.spreads(convolutional(), static.OPERATORS, feeds, threads=1)
    assert all(sum(map(len, one.numbers)) <= 64 + 2 * len(feeds) for one in found.values())


def test_values_that_are_not_finite_are_refused() -> None:
    feed = {name: np.full_like(array, np.inf) for name, array in feeds_of(convolutional())[0].items()}
    with pytest.raises(NotApplicable, match="not finite on the calibration data"):
        ranges.spreads(convolutional(), static.OPERATORS, [feed], threads=1)


def test_the_model_runs_on_the_data_once_for_all_methods(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []
    actual = ranges.spreads
    monkeypatch.setattr(ranges, "spreads", lambda *args, **more: calls.append(1) or actual(*args, **more))
    given = material(convolutional(), tmp_path)
    for method in ranges.METHODS:
        BY_NAME[f"int8-static-{method}"].make(given, lambda form: 0.0)
    assert len(calls) == 1


def test_the_form_with_all_layers_lowered_is_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quantizer = static.Quantizer(material(convolutional(), tmp_path), "minmax")
    assert quantizer.form(frozenset()) is quantizer.form(frozenset())


def test_where_convolutions_are_nearly_all_recipes_of_matrices_are_refused_with_the_share(tmp_path: Path) -> None:
    given = material(mixed(channels=64), tmp_path)
    assert matrices_share(given) == pytest.approx(32 * 32 / (32 * 32 + 256 * 64 * (27 + 32)))
    for name in ("int8-dynamic", "int8-matrices", "int8-matrices-smooth", "int8-weights", "int4-weights"):
        with pytest.raises(NotApplicable, match=r"they are 0\.11% of the model's multiplications"):
            BY_NAME[name].make(given, lambda form: 0.0)


def test_models_of_matrices_and_those_whose_work_cannot_be_told_are_not_refused(tmp_path: Path) -> None:
    given = material(perceptron(), tmp_path)
    assert matrices_share(given) == 1.0
    worth_matrices(given)
    model = mixed(channels=64)
    model.graph.node.append(helper.make_node("Foreign", ["x"], ["z"], domain="somewhere"))  # type: ignore[attr-defined]
    model.graph.node.append(helper.make_node("Conv", ["z", "c0"], ["unread"]))  # type: ignore[attr-defined]
    unknown = material(model, tmp_path)  # type: ignore[arg-type]
    assert matrices_share(unknown) is None
    worth_matrices(unknown)


def test_what_the_passes_made_is_not_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def last_only(model: onnx.ModelProto, *, only: Sequence[str] | None = None) -> None:
        assert list(only or ()) == [one.name for one in FINAL]
        raise NotApplicable("nothing to join")

    monkeypatch.setattr(lossless, "rewritten", last_only)
    recipe, given = passes_recipe("plain"), material(perceptron(), tmp_path)
    made = lossless.Made(given.fused)
    given.shared[PLAIN] = made
    assert recipe.make(given, lambda form: 0.0) is made
    given.shared[PLAIN] = NotApplicable("nothing to do")
    with pytest.raises(NotApplicable, match="nothing to join"):
        recipe.make(given, lambda form: 0.0)


def test_a_value_that_is_never_there_gets_a_range_that_is_harmless() -> None:
    draw = Drawing()
    draw.node("Relu", "x", output="y")
    model = draw.model({"x": ["N", 4]}, kind=TensorProto.FLOAT)
    found = ranges.spreads(model, ["Relu"], [{"x": np.zeros((0, 4), np.float32)}], threads=1)
    assert found["x"].low == found["x"].high == 0
