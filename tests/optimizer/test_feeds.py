"""Random inputs: of which shapes, and of which values."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from openclaw.errors import ConfigInvalid
from openclaw.optimizer.measuring import feeds
from openclaw.optimizer.measuring.engine import open_engine
from openclaw.optimizer.measuring.feeds import Inputs, check_shapes, guess_shapes, other_sizes, random_feed
from optimizer import models


def inputs_of(model: onnx.ModelProto) -> Inputs:
    return Inputs.of(model, open_engine(model, 1).signature)


def guessed(model: onnx.ModelProto, **given: tuple[int, ...]) -> feeds.Shapes:
    engine = open_engine(model, 1)
    return guess_shapes(Inputs.of(model, engine.signature), given, engine, seed=0)


def test_what_is_free_becomes_a_batch_of_one_and_usual_sizes() -> None:
    assert guessed(models.mlp()) == {"x": (1, 16)}
    assert guessed(models.embedding()) == {"ids": (1, 128)}


def test_the_users_sizes_come_first_and_a_dimension_of_one_name_has_one_size() -> None:
    assert guessed(models.embedding(), ids=(2, 5)) == {"ids": (2, 5)}
    both = models.made(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        [models.tensor("a", "N", "S"), models.tensor("b", "N", "S")],
        [models.tensor("y", "N", "S")],
    )
    assert guessed(both, a=(3, 7)) == {"a": (3, 7), "b": (3, 7)}


def test_sizes_are_tried_until_the_model_runs() -> None:
    table = models.made(
        [helper.make_node("Add", ["x", "positions"], ["y"])],
        [models.tensor("x", "N", "S", 4)],
        [models.tensor("y", "N", "S", 4)],
        weights=[models.weight("positions", 16, 4)],
    )
    assert guessed(table) == {"x": (1, 16, 4)}


def test_a_model_that_runs_with_none_of_the_guesses_asks_for_shapes() -> None:
    odd = models.made(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [models.tensor("x", "N")],
        [models.tensor("y", 7, 3)],
        weights=[onnx.numpy_helper.from_array(np.array([7, 3], np.int64), "shape")],
    )
    with pytest.raises(ConfigInvalid, match=r"shapes: the model does not run on random inputs of x \[1\]"):
        guessed(odd)
    assert guessed(odd, x=(21,)) == {"x": (21,)}


def test_indices_stay_inside_the_table_that_they_pick_from_and_reach_all_of_it() -> None:
    inputs = inputs_of(models.embedding())
    feed = random_feed(inputs, {"ids": (40, 40)}, rng=np.random.default_rng(0))
    assert set(np.unique(feed["ids"])) == set(range(7))


def test_every_datatype_is_given_as_it_is_taken() -> None:
    for kind in (
        TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.BOOL,
        TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64, TensorProto.STRING,
    ):  # fmt: skip
        model = models.made(
            [helper.make_node("Identity", ["x"], ["y"])],
            [models.tensor("x", "N", 3, kind=kind)],
            [models.tensor("y", "N", 3, kind=kind)],
        )
        engine = open_engine(model, 1)
        feed = random_feed(inputs_of(model), {"x": (2, 3)}, rng=np.random.default_rng(0))
        assert np.array_equal(engine.run(feed)["y"], feed["x"]), kind


def test_free_dimensions_alone_get_other_sizes() -> None:
    assert other_sizes(inputs_of(models.cnn(size=24)), {"image": (1, 3, 24, 24)}) == {"image": (2, 3, 24, 24)}


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ({"y": (1,)}, "shapes: there is no input 'y'; the model takes x: FP32[-1,16]"),
        ({"x": (1, 17)}, "shapes: 'x' is given [1, 17]; the model takes [-1, 16]"),
        ({"x": (0, 16)}, "shapes: 'x' is given [0, 16]"),
        ({"x": (1, 16, 1)}, "shapes: 'x' is given [1, 16, 1]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: dict[str, tuple[int, ...]], told: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        check_shapes(shapes, open_engine(models.mlp(), 1).signature)
    assert told in str(caught.value)
