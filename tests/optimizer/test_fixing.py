"""Models for given sizes of their inputs alone."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import openclaw
from openclaw.errors import ConfigInvalid
from openclaw.optimizer.measuring.engine import open_engine
from openclaw.optimizer.model.fixing import fixed
from openclaw.optimizer.model.source import read
from openclaw.optimizer.options import checked
from optimizer import models


def sized(rounds: int = 40) -> onnx.ModelProto:
    """Computes rows times length of its input, again and again in a way that no name makes constant, and adds it."""
    nodes = [helper.make_node("Shape", ["x"], ["shape"]), helper.make_node("ReduceProd", ["shape"], ["p0"], keepdims=0)]
    for turn in range(rounds):
        nodes.append(helper.make_node("Mod", [f"p{turn}", f"m{turn}"], [f"p{turn + 1}"]))
    nodes.append(helper.make_node("Cast", [f"p{rounds}"], ["number"], to=TensorProto.FLOAT))
    nodes.append(helper.make_node("Add", ["x", "number"], ["y"]))
    numbers = [numpy_helper.from_array(np.array(1000 - turn), f"m{turn}") for turn in range(rounds)]
    return models.made(nodes, [models.tensor("x", "N", "S")], [models.tensor("y", "N", "S")], weights=numbers)


def test_what_is_computed_of_sizes_is_constant_and_the_result_takes_no_others() -> None:
    model = sized(1)
    model.graph.node[2].op_type = "Div"
    given = {"shapes": {"x": (3, 5)}, "precision": "fp32", "engines": ["onnxruntime"], "memory": "default"}
    result = openclaw.optimize(model, fix_shapes=True, **given)  # type: ignore[arg-type]
    for value in (result.model.graph.input[0], result.model.graph.output[0]):
        assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [3, 5]
    assert result.report.notes[0].startswith("The result takes these shapes alone")
    assert result.report.baseline is not None or result.report.kept is None
    feed = {"x": np.ones((3, 5), np.float32)}
    assert np.array_equal(open_engine(result.model, 1).run(feed)["y"], open_engine(model, 1).run(feed)["y"])


def test_a_name_is_the_same_size_wherever_it_stands() -> None:
    source = fixed(read(sized()), {"x": (3, 5)})
    assert [dim.dim_value for dim in source.model.graph.output[0].type.tensor_type.shape.dim] == [3, 5]
    assert source.digest != read(sized()).digest


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ({"z": (1,)}, "there is no input 'z'; the model takes x"),
        ({"x": (1,)}, "has 2 dimensions"),
        ({"x": (1, 0)}, "0 is to be 1"),
    ],
)
def test_shapes_that_do_not_fit_are_told(shapes: dict[str, tuple[int, ...]], told: str) -> None:
    with pytest.raises(ConfigInvalid, match=told):
        fixed(read(sized()), shapes)


def test_one_name_cannot_stand_for_two_sizes() -> None:
    model = models.made(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        [models.tensor("a", "N", 4), models.tensor("b", "N", 4)],
        [models.tensor("y", "N", 4)],
    )
    with pytest.raises(ConfigInvalid, match="3 is to be 2"):
        fixed(read(model), {"a": (2, 4), "b": (3, 4)})


def test_sizes_are_asked_for_and_decide_the_name_in_the_cache() -> None:
    with pytest.raises(ConfigInvalid, match="fix_shapes: say with shapes"):
        checked(fix_shapes=True)
    named = {checked(shapes={"x": (1, 2)}, fix_shapes=fix).identity()["fix_shapes"] for fix in (True, False)}  # type: ignore[index]
    assert named == {True, False}


def test_a_result_for_one_shape_is_not_found_for_another(tmp_path: Path) -> None:
    given = {"precision": "fp32", "engines": ["onnxruntime"], "memory": "default", "cache": tmp_path}
    sizes = []
    for shape in ((3, 5), (3, 5), (4, 5)):
        result = openclaw.optimize(models.wasteful(2), shapes={"x": (shape[0], 256)}, fix_shapes=True, **given)  # type: ignore[arg-type]
        sizes.append((result.report.cached, result.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value))
    assert sizes == [(False, 3), (True, 3), (False, 4)]
