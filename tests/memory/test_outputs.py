"""Large outputs in arrays of the caller's: the same answers, in that memory, and no run where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from openclaw.errors import InvalidRequest, OverBudget
from openclaw.execute.session import Model
from openclaw.memory.arena import Arena, Shrink
from openclaw.memory.pool.objects import POOLED
from openclaw.memory.properties import Memory
from optimizer import models

Array = np.ndarray[Any, Any]

WIDE = POOLED // 4
"""Numbers of an output that is just large."""


class Places:
    """Makes arrays and remembers them; ``room``: in bytes, for each."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.made: list[Array] = []
        self.room = room

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        array = np.full(shape, 77, dtype)
        if array.nbytes > self.room:
            raise OverBudget(array.nbytes, free=self.room)
        self.made.append(array)
        return array


def net(folder: Path, nodes: list[Any], outputs: dict[str, list[Any]], weights: dict[str, Array] | None = None) -> Path:
    """A model of FP32[N,4] ``x``."""
    ends = [models.tensor(name, *shape) for name, shape in outputs.items()]
    constants = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    path = folder / "net.onnx"
    onnx.save(models.made(nodes, [models.tensor("x", "N", 4)], ends, weights=constants), path)
    return path


@pytest.fixture
def widening(tmp_path: Path) -> Path:
    """``wide`` FP32[N,WIDE] and ``narrow`` FP32[N,4]."""
    weight = np.random.default_rng(0).standard_normal((4, WIDE)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["wide"]), helper.make_node("Neg", ["x"], ["narrow"])]
    return net(tmp_path, nodes, {"wide": ["N", WIDE], "narrow": ["N", 4]}, {"w": weight})


def rows(count: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(count).standard_normal((count, 4)).astype(np.float32)}


@pytest.mark.parametrize("memory", [Memory(), Memory(Arena(shrink=Shrink.ALWAYS)), Memory(Arena(), rows=2)])
def test_large_outputs_lie_where_they_are_told_to_with_the_values_they_have_without(
    widening: Path, memory: Memory
) -> None:
    plain, placed, places = Model.from_file(widening), Model.from_file(widening, memory=memory), Places()
    placed.place_outputs(places.empty)
    for count in (5, 1, 3):
        places.made.clear()
        given, wanted = placed.run(rows(count)), plain.run(rows(count))
        assert any(given["wide"] is array for array in places.made)
        for name, array in wanted.items():
            np.testing.assert_array_equal(given[name], array)


def test_small_outputs_are_left_to_onnxruntime(widening: Path) -> None:
    model, places = Model.from_file(widening), Places()
    model.place_outputs(places.empty)
    assert model.run(rows(3), outputs=["narrow"])["narrow"].shape == (3, 4)
    assert places.made == []


def test_outputs_come_in_the_order_and_as_often_as_they_are_asked_for(widening: Path) -> None:
    model, places = Model.from_file(widening), Places()
    model.place_outputs(places.empty)
    narrow, wide, again = model.infer(("narrow", "wide", "wide"), rows(2))
    assert (narrow.shape, wide.shape) == ((2, 4), (2, WIDE))
    assert again is wide


@pytest.mark.parametrize("memory", [Memory(), Memory(Arena(), rows=2)])
def test_what_was_let_in_with_large_inputs_is_answered_also_where_there_is_no_place(
    tmp_path: Path, memory: Memory
) -> None:
    path = net(tmp_path, [helper.make_node("Neg", ["x"], ["y"])], {"y": ["N", 4]})
    model, places = Model.from_file(path, memory=memory), Places(0)
    model.place_outputs(places.empty)
    x = rows(POOLED // 16)
    np.testing.assert_array_equal(model.run(x)["y"], -x["x"])
    assert places.made == []


@pytest.mark.parametrize("memory", [Memory(), Memory(Arena(), rows=2)])
def test_nothing_is_run_where_there_is_no_place(widening: Path, memory: Memory) -> None:
    model, places = Model.from_file(widening, memory=memory), Places(3 * POOLED)
    model.place_outputs(places.empty)
    with pytest.raises(OverBudget):
        model.run(rows(4))
    assert model.run(rows(3))["wide"].shape == (3, WIDE)


def test_inputs_that_do_not_lie_in_order_are_taken(widening: Path) -> None:
    model = Model.from_file(widening)
    wanted = model.run(rows(6))
    model.place_outputs(Places().empty)
    lying = {"x": np.asfortranarray(rows(6)["x"])}
    np.testing.assert_array_equal(model.run(lying)["wide"], wanted["wide"])
    frozen = rows(6)
    frozen["x"].flags.writeable = False
    np.testing.assert_array_equal(model.run(frozen)["wide"], wanted["wide"])


@pytest.mark.parametrize(
    ("nodes", "weights", "expected", "placed"),
    [
        pytest.param(
            [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)],
            {},
            lambda x: np.concatenate([x, x]),
            1,
            id="more rows",
        ),
        pytest.param(
            [helper.make_node("Slice", ["x", "first", "end"], ["y"])],
            {"first": np.array([0]), "end": np.array([7])},
            lambda x: x[:7],
            1,
            id="fewer rows",
        ),
        pytest.param([helper.make_node("Identity", ["x"], ["y"])], {}, lambda x: x, 3, id="the input itself"),
        pytest.param(
            [helper.make_node("Identity", ["c"], ["y"])],
            {"c": np.ones((9, 4), np.float32)},
            lambda x: np.ones((9, 4), np.float32),
            0,
            id="a constant",
        ),
    ],
)
def test_outputs_of_other_rows_than_the_inputs_are_right_and_not_placed_again(
    tmp_path: Path, nodes: list[Any], weights: dict[str, Array], expected: Callable[[Array], Array], placed: int
) -> None:
    model, places = Model.from_file(net(tmp_path, nodes, {"y": ["N", 4]}, weights)), Places()
    model.place_outputs(places.empty)
    for count in (POOLED // 16, POOLED // 16 + 1, POOLED // 16):
        x = rows(count)
        np.testing.assert_array_equal(model.run(x)["y"], expected(x["x"]))
    assert len(places.made) == placed


def test_what_a_model_refuses_is_refused_as_without_and_the_next_is_placed_again(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["found"]),
        helper.make_node("Reshape", ["found", "shape"], ["y"]),
    ]
    weights = {"table": np.zeros((3, WIDE), np.float32), "shape": np.array([-1, 4 * WIDE])}
    model, places = Model.from_file(net(tmp_path, nodes, {"y": ["N", 4 * WIDE]}, weights)), Places()
    model.place_outputs(places.empty)
    ones = {"x": np.ones((2, 4), np.float32)}
    model.run(ones)
    with pytest.raises(InvalidRequest, match="indices element out of data bounds"):
        model.run({"x": np.full((2, 4), 9, np.float32)})
    assert model.run(ones)["y"] is places.made[-1]


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.BFLOAT16])
def test_datatypes_that_numpy_has_no_plain_memory_for_are_left_to_onnxruntime(tmp_path: Path, kind: int) -> None:
    ends = [models.tensor(name, "N", WIDE, kind=kind) for name in "xy"]
    path = tmp_path / "net.onnx"
    onnx.save(models.made([helper.make_node("Identity", ["x"], ["y"])], ends[:1], ends[1:]), path)
    model, places = Model.from_file(path), Places()
    model.place_outputs(places.empty)
    x = np.full((3, WIDE), "a", object) if kind == TensorProto.STRING else np.ones((3, WIDE), np.uint16)
    np.testing.assert_array_equal(model.run({"x": x})["y"], x)
    assert places.made == []
