"""What a model file says of its memory is read as it was written, and what is wrong in it costs a line in the log."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

import openclaw
from openclaw.memory.arena import Arena, Growth, Shrink
from openclaw.memory.properties import ARENA, ROWS, Memory, memory_of, read_arena, written

BYTES = st.none() | st.integers(1, 1 << 40)
ARENAS = st.builds(
    Arena,
    growth=st.sampled_from(Growth),
    initial_bytes=BYTES,
    largest_bytes=BYTES,
    dead_bytes=BYTES,
    pattern=st.booleans(),
    shrink=st.sampled_from(Shrink),
)


@given(ARENAS)
def test_settings_are_read_as_they_were_written(arena: Arena) -> None:
    assert read_arena(written(arena)) == arena


@given(st.none() | ARENAS, st.none() | st.integers(1, 1 << 20))
def test_a_models_properties_are_read_as_they_were_written(arena: Arena | None, rows: int | None) -> None:
    memory = Memory(arena, rows)
    assert memory_of(memory.properties(), source="a model") == memory


def test_what_is_as_onnxruntime_does_needs_no_property() -> None:
    assert Memory().properties() == {}
    assert Memory(Arena(), 4).properties() == {ARENA: "{}", ROWS: "4"}
    assert written(Arena(pattern=True, shrink=Shrink.NEW_SHAPES)) == '{"pattern":true,"shrink":"new shapes"}'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is no JSON"),
        ("{", "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ("[]", "it is no JSON object"),
        ('{"grow":1}', "there is no setting 'grow'; there are growth, initial_bytes"),
        ('{"growth":"fast"}', "growth is 'fast'; allowed: next power of two, same as requested"),
        ('{"shrink":[]}', r"shrink is '\[\]'; allowed: never, new shapes, always"),
        ('{"pattern":1}', "pattern is '1'; allowed: true, false"),
        ('{"dead_bytes":0}', "dead_bytes is '0'; allowed: 1 to"),
        ('{"dead_bytes":1e99}', "dead_bytes is '1e.99'; allowed: 1 to"),
        ('{"initial_bytes":true}', "initial_bytes is 'True'; allowed: 1 to"),
        ('{"largest_bytes":9223372036854775808}', "largest_bytes is '9223372036854775808'; allowed: 1 to"),
    ],
)
def test_settings_that_cannot_be_are_told_with_what_is_allowed(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_arena(text)


@given(st.text())
def test_any_text_is_settings_or_a_sentence(text: str) -> None:
    memory = memory_of({ARENA: text, ROWS: text}, source="a model")
    assert memory.rows is None or str(memory.rows) == text.lstrip("0")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "rectified", [x], [y])
    path = tmp_path / "rectified.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def said(path: Path, properties: dict[str, str]) -> Path:
    model = onnx.load(path)
    helper.set_model_props(model, properties)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("rows", ["", "0", "-1", "two", "1.0", "²", "1048577", "9" * 5000])
def test_a_model_whose_properties_are_wrong_runs_without_them_and_the_log_says_so_once(
    path: Path, rows: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = openclaw.load(said(path, {ARENA: '{"pattern":"yes"}', ROWS: rows}), threads=1)
    assert model.memory == Memory()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0] == f"rectified.onnx: its property {ARENA} is passed over: pattern is 'yes'; allowed: true, false"
    assert lines[1].startswith(f"rectified.onnx: its property {ROWS} is passed over: it is '")
    assert len(lines[1]) < 300
    np.testing.assert_array_equal(model.run({"x": [[-1, 0, 1, 2]]})["y"], [[0, 0, 1, 2]])


def test_a_loaded_model_has_the_memory_that_its_file_asks_for(path: Path) -> None:
    wanted = Memory(Arena(dead_bytes=256), 2)
    model = openclaw.load(said(path, wanted.properties()), threads=1)
    assert model.memory == wanted
    rows = np.arange(20, dtype=np.float32).reshape(5, 4)
    np.testing.assert_array_equal(model.run({"x": rows})["y"], rows)


def test_rows_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="rows is 0; it must be 1 to"):
        Memory(rows=0)
