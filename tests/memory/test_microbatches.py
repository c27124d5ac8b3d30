"""A large batch run a few rows at a time: the same answers, and no more held than those rows need."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from openclaw.execute.microbatches import MicroBatches
from openclaw.execute.session import Model
from openclaw.memory.profile import ArenaUse, arena_use
from openclaw.memory.properties import Memory

Arrays = Mapping[str, np.ndarray[Any, Any]]


def saved(folder: Path, nodes: list[Any], shapes: tuple[list[Any], list[Any]], weights: Sequence[Any] = ()) -> Path:
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in zip("xy", shapes, strict=True)
    )
    graph = helper.make_graph(nodes, "net", [x], [y], list(weights))
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def convolved(tmp_path: Path) -> Path:
    """Two convolutions, of which each makes half a megabyte a row."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("v", (32, 3, 3, 3)), ("w", (32, 32, 3, 3)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["c"], pads=[1] * 4),
        helper.make_node("Conv", ["c", "w"], ["d"], pads=[1] * 4),
        helper.make_node("ReduceMean", ["d"], ["y"], axes=[2, 3], keepdims=0),
    ]
    return saved(tmp_path, nodes, (["N", 3, 64, 64], ["N", 32]), weights)


def frames(rows: int) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.random.default_rng(rows).standard_normal((rows, 3, 64, 64)).astype(np.float32)}


@pytest.mark.parametrize("rows", [1, 3, 4, 7, 16])
@pytest.mark.parametrize("batch", [1, 4, 10])
def test_a_batch_gets_the_answers_that_it_gets_as_a_whole(convolved: Path, rows: int, batch: int) -> None:
    whole = Model.from_file(convolved, threads=1)
    parts = Model.from_file(convolved, threads=1, memory=Memory(rows=rows))
    feed = frames(batch)
    given_ = parts.run(feed)["y"]
    assert given_.shape == (batch, 32)
    np.testing.assert_allclose(given_, whole.run(feed)["y"], rtol=1e-5, atol=1e-6)


def use(path: Path, rows: int | None, folder: Path) -> ArenaUse:
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / f"profile-{rows}")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    run = session.run if rows is None else MicroBatches(session.run, rows).run
    for _ in range(3):
        run(None, frames(16))
    return arena_use(json.loads(Path(session.end_profiling()).read_text()))


def test_few_rows_at_a_time_hold_a_fraction_of_the_activations(convolved: Path, tmp_path: Path) -> None:
    whole, parts = use(convolved, None, tmp_path), use(convolved, 1, tmp_path)
    assert parts.most_in_use <= whole.most_in_use / 8
    assert parts.most_held <= whole.most_held / 4


def test_several_threads_run_at_once(convolved: Path) -> None:
    model = Model.from_file(convolved, threads=1, memory=Memory(rows=2))
    expected = [model.run(frames(rows))["y"] for rows in range(1, 9)]
    with ThreadPoolExecutor(4) as pool:
        for rows, found in enumerate(pool.map(lambda rows: model.run(frames(rows))["y"], range(1, 9)), start=1):
            np.testing.assert_array_equal(found, expected[rows - 1])


def counted(
    answer: Callable[[Arrays], list[np.ndarray[Any, Any]]],
) -> tuple[Callable[[Any, Arrays], list[np.ndarray[Any, Any]]], list[int]]:
    """A model with a list of the rows that it was run with."""
    ran: list[int] = []

    def run(names: Any, feeds: Arrays) -> list[np.ndarray[Any, Any]]:
        ran.append(max(len(array) if array.ndim else 1 for array in feeds.values()))
        return answer(feeds)

    return run, ran


@given(batch=st.integers(0, 40), rows=st.integers(1, 20))
def test_parts_have_as_many_rows_as_allowed_but_the_last(batch: int, rows: int) -> None:
    run, ran = counted(lambda feeds: [feeds["x"] * 2, feeds["x"].astype(str)])
    x = np.arange(2 * batch).reshape(batch, 2)
    doubled, texts = MicroBatches(run, rows).run(None, {"x": x})
    np.testing.assert_array_equal(doubled, x * 2)
    np.testing.assert_array_equal(texts, x.astype(str))
    assert max(ran) <= rows
    assert sum(ran) == batch
    assert all(each == rows for each in ran[:-1])


@pytest.mark.parametrize(
    "answer",
    [
        lambda feeds: [feeds["x"].sum()],
        lambda feeds: [feeds["x"].sum(axis=0)],
        lambda feeds: [np.concatenate([feeds["x"], feeds["x"]])],
        lambda feeds: [feeds["x"][feeds["x"][:, 0] > 2]],
        lambda feeds: [feeds["x"], np.zeros((len(feeds["x"]), int(feeds["x"][0, 0]) + 1))],
    ],
    ids=["no rows", "no row a row", "two a row", "rows that are found", "rows of other sizes"],
)
def test_outputs_that_are_no_row_for_a_row_come_from_a_run_of_all(
    answer: Callable[[Arrays], list[np.ndarray[Any, Any]]],
) -> None:
    run, ran = counted(answer)
    x = np.arange(18.0).reshape(6, 3)
    for found, expected in zip(MicroBatches(run, 2).run(None, {"x": x}), answer({"x": x}), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert ran[-1] == 6


def test_inputs_of_other_numbers_of_rows_are_run_as_they_are() -> None:
    run, ran = counted(lambda feeds: [feeds["x"]])
    MicroBatches(run, 1).run(None, {"x": np.zeros((4, 1)), "table": np.zeros((3, 1))})
    MicroBatches(run, 1).run(None, {"x": np.zeros((4, 1)), "scale": np.float32(2)})
    assert ran == [4, 4]


def test_a_model_of_a_fixed_number_of_rows_is_run_as_a_whole_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], ([4, 2], [4, 2]))
    with caplog.at_level(logging.WARNING):
        model = Model.from_file(path, threads=1, memory=Memory(rows=1))
    x = np.ones((4, 2), np.float32)
    np.testing.assert_array_equal(model.run({"x": x})["y"], x)
    assert "batches are not run 1 rows at a time: the first dimension of input 'x' is not free: [4, 2]" in caplog.text
