"""How a model holds activations is chosen by measurement, named in the model that is given out, and reported."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import openclaw
from openclaw.devices.cpu import Grant
from openclaw.errors import ConfigInvalid
from openclaw.memory.choice import DEFAULT, SLOWER, WORTH_WHILE
from openclaw.memory.properties import ARENA, ROWS, Memory
from openclaw.optimizer import candidates
from openclaw.optimizer.measuring.engine import Answer, open_engine
from openclaw.optimizer.measuring.feeds import Inputs
from openclaw.optimizer.memory import racing
from openclaw.optimizer.memory.cases import cases, fewer_rows, first_rows
from openclaw.optimizer.memory.choosing import Chooser, Chosen
from openclaw.optimizer.optimize import optimize
from optimizer import models

SIDE = 32


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times so little that a test ends soon; no outcome hangs on it."""
    monkeypatch.setattr(racing, "TIMING", replace(racing.TIMING, rounds=7, slice_seconds=0.001))


def chain(*, last: Sequence[Any] = (), rows: object = "N") -> onnx.ModelProto:
    """Convolutions that make 200 kB a row each."""
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["e"], pads=[1] * 4),
        *(last or [helper.make_node("ReduceMean", ["e"], ["y"], axes=[2, 3], keepdims=0)]),
    ]
    weights = [models.weight("v", 48, 3, 3, 3), models.weight("w", 48, 48, 3, 3)]
    inputs = [models.tensor("x", rows, 3, SIDE, SIDE)]
    return models.made(nodes, inputs, [models.tensor("y", rows, 48)], weights=weights)


def mixing() -> onnx.ModelProto:
    """The same, with the mean of all rows taken from each."""
    last = [
        helper.make_node("ReduceMean", ["e"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMean", ["m"], ["n"], axes=[0]),
        helper.make_node("Sub", ["m", "n"], ["y"]),
    ]
    return chain(last=last)


def frames(rows: int) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.random.default_rng(rows).standard_normal((rows, 3, SIDE, SIDE)).astype(np.float32)}


def chosen(
    model: onnx.ModelProto, folder: Path, *, asked: str, batches: tuple[int, ...] = (1, 16), seconds: float = 60.0
) -> Chosen:
    path = folder / "model.onnx"
    onnx.save(model, path)
    ends = time.perf_counter() + seconds
    return Chooser(model, path, [frames(batch) for batch in batches], threads=1, asked=asked, ends=ends).chosen()


def test_the_least_is_one_row_at_a_time(tmp_path: Path) -> None:
    found = chosen(chain(), tmp_path, asked="least")
    assert found.memory.rows == 1
    assert found.report.kept.endswith(", 1 row at a time")
    (way,) = [each for each in found.report.ways if each.outcome == "kept"]
    assert way.held_bytes[-1] < found.report.default_held_bytes[-1] / 4
    assert all(mine <= its for mine, its in zip(way.held_bytes, found.report.default_held_bytes, strict=True))
    assert len(way.ratios) == len(found.report.shapes) == 2
    assert found.report.shapes == [{"x": [1, 3, SIDE, SIDE]}, {"x": [16, 3, SIDE, SIDE]}]
    assert "the least was asked for" in found.report.verdict


def test_what_is_kept_is_no_slower_than_it_may_be_and_holds_less(tmp_path: Path) -> None:
    found = chosen(chain(), tmp_path, asked="auto")
    for way in found.report.ways:
        assert way.held_bytes or way.outcome == "refused"
        assert max(way.ratios) <= SLOWER or way.outcome == "refused" or "no slower beyond the noise" in way.reason
    kept = [each for each in found.report.ways if each.outcome == "kept"]
    assert len(kept) <= 1, "what held more has made way"
    if found.report.kept == DEFAULT:
        assert (found.memory, kept) == (Memory(), [])
    else:
        assert kept[0].held_bytes[-1] < found.report.default_held_bytes[-1]
        assert (kept[0].name, kept[0].rows) == (found.report.kept, found.memory.rows)


def test_a_batch_is_not_divided_where_rows_depend_on_each_other(tmp_path: Path) -> None:
    found = chosen(mixing(), tmp_path, asked="least")
    assert found.memory.rows is None
    assert found.memory.arena is not None
    assert "Batches are run as a whole, for a row's answer depends on the others: output 'y'" in found.report.verdict


def test_a_batch_is_not_divided_where_its_size_is_fixed(tmp_path: Path) -> None:
    found = chosen(chain(rows=16), tmp_path, asked="least", batches=(16,))
    assert found.memory.rows is None
    assert "the first dimension of input 'x' is not free: [16, 3, 32, 32]" in found.report.verdict


def test_a_model_that_needs_little_is_left_as_it_is(tmp_path: Path) -> None:
    model = models.wasteful(1)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    feed = {"x": np.ones((4, 256), np.float32)}
    found = Chooser(model, path, [feed], threads=1, asked="least", ends=math.inf).chosen()
    assert found.memory == Memory()
    assert found.report.default_held_bytes[0] <= WORTH_WHILE
    assert found.report.ways == []


def test_without_time_the_default_stays(tmp_path: Path) -> None:
    found = chosen(chain(), tmp_path, asked="auto", seconds=0.0)
    assert found.memory == Memory()
    assert "there was no time left" in found.report.verdict


def outputs(path: Path, rows: int) -> Answer:
    return openclaw.load(path, threads=1).run(frames(rows))


@pytest.fixture
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """No form is tried, so that only memory is chosen."""
    monkeypatch.setattr(candidates, "all_recipes", lambda: ())


@pytest.mark.usefixtures("nothing_else")
def test_the_model_that_is_given_out_names_its_memory_and_answers_as_before(tmp_path: Path) -> None:
    exported = chain()
    onnx.save(exported, tmp_path / "exported.onnx")
    result = openclaw.optimize(exported, memory="least", threads=1, engines=["onnxruntime"], cache=tmp_path / "cache")
    report = result.report
    assert report.kept is None
    assert report.changed
    assert report.memory is not None
    assert report.memory.shapes[-1]["x"][0] == 16
    assert report.memory.verdict in report.verdict
    assert {each.key for each in result.model.metadata_props} >= {ROWS}
    assert not exported.metadata_props, "what the user gave stays as it was"
    onnx.save(result.model, tmp_path / "held.onnx")
    assert openclaw.load(tmp_path / "held.onnx", threads=1).memory.rows == 1
    expected = outputs(tmp_path / "exported.onnx", 10)["y"]
    np.testing.assert_allclose(outputs(tmp_path / "held.onnx", 10)["y"], expected, rtol=1e-4, atol=1e-5)
    again = optimize(exported, memory="least", threads=1, engines=["onnxruntime"], cache=tmp_path / "cache")
    assert again.report.cached
    assert again.model == result.model


@pytest.mark.usefixtures("nothing_else")
def test_the_default_is_what_a_model_is_left_with_that_named_another_memory(tmp_path: Path) -> None:
    model = chain()
    helper.set_model_props(model, {ROWS: "2", ARENA: "{}", "author": "somebody"})
    result = optimize(model, memory="default", threads=1, engines=["onnxruntime"])
    assert {each.key: each.value for each in result.model.metadata_props} == {"author": "somebody"}
    assert result.report.memory is None


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"memory": "none"}, "memory: it is 'none'; allowed: auto, least, default"),
        ({"max_batch_size": 0}, "max_batch_size: it is 0; allowed is 1 and more"),
    ],
)
def test_what_cannot_be_asked_for_is_told(arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigInvalid, match=why):
        optimize(chain(), **arguments)


def measured_rows(model: onnx.ModelProto, *, most: int = 16, **changed: Any) -> list[int]:
    engine = open_engine(model, 1)
    limits: dict[str, Any] = {"seconds": math.inf, "held": 1 << 20, "grant": Grant(cores=1, memory_bytes=None)}
    found = cases(engine, Inputs.of(model, engine.signature), [frames(1)], most=most, **{**limits, **changed})
    return [len(feed["x"]) for feed in found]


def test_a_large_batch_is_measured_beside_the_users_shapes() -> None:
    assert measured_rows(chain()) == [1, 16]
    assert measured_rows(chain(), most=5) == [1, 5]
    assert measured_rows(chain(), most=1) == [1]
    assert measured_rows(chain(rows=1)) == [1]


def test_the_batch_is_no_larger_than_memory_and_time_allow() -> None:
    # A quarter of 32 MiB holds eight rows of a megabyte.
    assert measured_rows(chain(), grant=Grant(cores=1, memory_bytes=32 << 20)) == [1, 8]
    assert measured_rows(chain(), grant=Grant(cores=1, memory_bytes=1 << 20)) == [1]
    assert measured_rows(chain(), seconds=0.0) == [1]


def test_parts_of_a_batch() -> None:
    assert fewer_rows(frames(16)) == [1, 2, 4, 8]
    assert fewer_rows(frames(3)) == [1, 2]
    assert fewer_rows(frames(1)) == []
    assert len(first_rows(frames(16), 4)["x"]) == 4
    assert first_rows(frames(3), None)["x"].shape[0] == first_rows(frames(3), 8)["x"].shape[0] == 3
