"""The cache of optimized models in a real object store: one machine optimizes, the others find it."""

import logging
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from openclaw.optimizer import surroundings
from openclaw.optimizer.results.cache import Cache
from openclaw.optimizer.results.report import Form, Report
from openclaw.optimizer.results.result import Result

KEY = "a" * 64


def model(operator: str) -> onnx.ModelProto:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], operator, value[:1], value[1:])
    return helper.make_model(graph)


@pytest.fixture
def optimized() -> Result:
    exported, form = (Form(sha256=digit * 64, bytes=1, nodes=1) for digit in "01")
    report = Report(
        source="m.onnx", exported=exported, result=form, kept="fp32-passes", verdict="It is kept.",
        machine=surroundings.read_machine(1), versions=surroundings.read_versions(), seed=0, seconds=1.5,
    )  # fmt: skip
    return Result(model("Relu"), report)


@pytest.fixture
def account(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return s3


def test_what_one_machine_optimized_another_finds(account: Any, optimized: Result) -> None:
    Cache("s3://models/optimized/").save(KEY, optimized)
    found = Cache("s3://models/optimized").load(KEY, model("Neg"))
    assert found is not None
    assert found.model == optimized.model
    assert found.report == optimized.report.model_copy(update={"cached": True})
    assert (account.folder / "models" / "optimized" / KEY).is_file()


def test_what_is_not_there_is_not_found(account: Any) -> None:
    assert Cache("s3://models/optimized").load("b" * 64, model("Neg")) is None


def test_an_entry_that_was_cut_short_in_the_store_is_passed_over(account: Any, optimized: Result) -> None:
    cache = Cache("s3://models/cut")
    cache.save(KEY, optimized)
    account.put(f"cut/{KEY}", (account.folder / "models" / "cut" / KEY).read_bytes()[:-1])
    assert cache.load(KEY, model("Neg")) is None


def test_a_store_that_refuses_costs_only_the_cache(
    s3: Any, monkeypatch: pytest.MonkeyPatch, optimized: Result, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in s3.environment(secret="wrong").items():
        monkeypatch.setenv(name, value)
    cache = Cache("s3://models/optimized")
    with caplog.at_level(logging.WARNING):
        assert cache.load(KEY, model("Neg")) is None
        cache.save(KEY, optimized)
    assert "cannot be read" in caplog.text
    assert "cannot be written" in caplog.text
