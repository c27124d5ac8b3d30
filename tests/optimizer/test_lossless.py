"""Forms that cost no accuracy: what counts as equal, and that a pass that fails is left out."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from graph.building import Drawing
from openclaw.errors import NotApplicable
from openclaw.graph import passes
from openclaw.graph.passes.contract import GraphPass
from openclaw.graph.passes.editing import Editor
from openclaw.optimizer import lossless
from openclaw.optimizer.candidates import lossless_recipes
from openclaw.optimizer.lossless import PLAIN, equal, finished, passes_recipe, rewritten
from optimizer import models
from optimizer.small_models import material


class Breaks(GraphPass):
    """Raises, half-way."""

    name = "breaks"

    def rewrite(self, editor: Editor) -> int:
        editor.model.graph.outputs.clear()
        raise KeyError("lost")


def answers(*values: object, dtype: type = np.float32) -> list[dict[str, np.ndarray]]:
    return [{"y": np.array(values, dtype)}]


def test_rounding_is_equal_and_more_is_not() -> None:
    reference = answers(1.0, -2.0, 0.0, 1000.0)
    assert equal(reference, answers(1.00001, -2.00001, 1e-6, 1000.01)) is None
    assert "differs by" in (equal(reference, answers(1.0, -2.0, 0.0, 1001.0)) or "")
    assert "differs by" in (equal(answers(1.0, 1.0), answers(1.0, 1.001)) or "")


def test_integers_and_strings_must_be_the_same() -> None:
    assert equal(answers(1, 2, dtype=np.int64), answers(1, 2, dtype=np.int64)) is None
    assert equal(answers(1, 2, dtype=np.int64), answers(1, 3, dtype=np.int64)) == "output 'y' differs, and is int64"
    assert equal(answers("a", dtype=object), answers("b", dtype=object)) == "output 'y' differs, and is object"


def test_half_precision_may_differ_by_two_roundings() -> None:
    assert equal(answers(1.0, dtype=np.float16), answers(1.001, dtype=np.float16)) is None
    assert equal(answers(1.0, dtype=np.float16), answers(1.01, dtype=np.float16)) is not None


def test_what_is_not_finite_must_be_so_in_the_same_places() -> None:
    assert equal(answers(np.nan, np.inf, 1.0), answers(np.nan, np.inf, 1.0)) is None
    assert equal(answers(np.inf, 1.0), answers(-np.inf, 1.0)) is not None
    assert equal(answers(np.nan, 1.0), answers(0.0, 1.0)) is not None


def test_other_shapes_types_and_missing_outputs_are_told() -> None:
    assert "is float32[1] where the exported model gives float32[2]" in (equal(answers(1, 2), answers(1)) or "")
    assert "is missing" in (equal(answers(1), [{}]) or "")


def test_a_pass_that_fails_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    together = (Breaks(), *passes.LOSSLESS)
    monkeypatch.setattr(passes, "LOSSLESS", together)
    monkeypatch.setattr(lossless, "LOSSLESS", together)
    made = rewritten(models.cnn())
    assert "KeyError" in str(made.notes["failed"])
    assert "BatchNormalization" not in {node.op_type for node in made.model.graph.node}
    assert ir.from_proto(made.model).graph.outputs


def test_a_model_on_which_no_pass_finds_anything_is_told() -> None:
    with pytest.raises(NotApplicable, match="no pass found anything"):
        rewritten(models.words(), only=["conv-batchnorm"])


def test_the_model_that_is_rewritten_stays_as_it_is() -> None:
    model = models.cnn()
    before = model.SerializeToString()
    rewritten(model)
    assert model.SerializeToString() == before


def test_what_is_finished_has_the_last_passes_too_and_tells_of_both() -> None:
    plain = rewritten(models.cnn())
    whole = finished(plain)
    assert "FusedConv" not in {node.op_type for node in plain.model.graph.node}
    assert "FusedConv" in {node.op_type for node in whole.model.graph.node}
    before, after = plain.notes["passes"], whole.notes["passes"]
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert after == {**before, "conv-activation": after["conv-activation"]}


def test_the_last_passes_alone_are_a_form_where_no_other_finds_anything(tmp_path: Path) -> None:
    plain = rewritten(models.cnn()).model
    given = replace(material(plain, tmp_path), shared={PLAIN: NotApplicable("nothing to do")})
    made = passes_recipe("plain").make(given, lambda form: 0.0)
    assert made.notes["passes"] == {"conv-activation": 2}
    assert "FusedConv" in {node.op_type for node in made.model.graph.node}


def test_what_one_recipe_takes_apart_no_pass_of_the_same_joins_again(tmp_path: Path) -> None:
    draw = Drawing()
    shared = draw.add("Conv", draw.input("x", ["N", 3, 8, 8]), draw.weight(32, 3, 1, 1))
    model = draw.model(draw.add("Relu", draw.batchnorm(shared, 32)), draw.add("Relu", shared))
    given = material(model, tmp_path)
    forms = {}
    for recipe in lossless_recipes():
        with suppress(NotApplicable):
            made = recipe.make(given, lambda form: 0.0)
            forms[recipe.name] = sorted(node.op_type for node in made.model.graph.node)
    assert forms == {"fp32-passes-speculative": ["FusedConv", "FusedConv"]}


def test_what_no_last_pass_finds_anything_in_is_finished_as_it_is() -> None:
    plain = rewritten(models.mlp())
    assert finished(plain) is plain
