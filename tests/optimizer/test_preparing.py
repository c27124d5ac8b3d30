"""What a model is made into before its products are lowered."""

from pathlib import Path

import numpy as np
from benchmarks.graph.families import FAMILIES

from graph.oracle import assert_close, run_plainly
from openclaw.optimizer.lossless import rewritten
from openclaw.optimizer.precision import RECIPES
from openclaw.optimizer.precision.preparing import prepared
from openclaw.optimizer.recipe import Material
from optimizer.small_models import VNNI, operators, transformer

BERT = next(family for family in FAMILIES if family.name == "bert")


def test_attention_with_a_mask_is_taken_apart_and_answers_as_before() -> None:
    fused = rewritten(BERT.build(small=True)).model
    apart = prepared(fused)
    assert operators(apart).count("MultiHeadAttention") == operators(fused).count("Attention") == 2
    feed = dict(BERT.feeds(2, small=True)[0])
    shape = feed["attention_mask"].shape
    for mask in (np.ones(shape, np.int64), np.zeros(shape, np.int64), np.arange(np.prod(shape)).reshape(shape) % 3):
        feed["attention_mask"] = mask
        for wanted, found in zip(run_plainly(fused, feed), run_plainly(apart, feed), strict=True):
            assert_close(found, wanted, "output")


def test_every_product_of_an_encoder_with_a_mask_becomes_8_bit(tmp_path: Path) -> None:
    model = BERT.build(small=True)
    feeds = BERT.feeds(2, count=4, small=True)
    given = Material(model, rewritten(model).model, feeds, feeds[:1], VNNI, 1, tmp_path)
    for name, product in (("int8-matrices", "MatMulIntegerToFloat"), ("int8-dynamic", "DynamicQuantizeMatMul")):
        (recipe,) = [one for one in RECIPES if one.name == name]
        form = recipe.make(given, lambda form: 0.0).model
        assert operators(form).count(product) == 4 * 2
        assert not {"MatMul", "Attention"} & set(operators(form))
        wanted, found = (run_plainly(one, feeds[0])[0].ravel() for one in (model, form))
        assert wanted @ found / np.linalg.norm(wanted) / np.linalg.norm(found) > 0.99


def test_attention_without_a_mask_that_is_added_stays_one_operator() -> None:
    model = transformer()
    assert operators(prepared(model)) == operators(model)
