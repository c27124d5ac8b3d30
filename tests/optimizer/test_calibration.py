"""Calibration data: what is read, what is refused, and halves that share nothing."""

import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from openclaw.errors import ConfigInvalid, ModelInvalid
from openclaw.optimizer.calibration import from_arrays, read, split


def model(**inputs):
    """A model that only names its inputs: ``x=(FLOAT, ["N", 3])``."""
    values = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    return helper.make_model(helper.make_graph([], "g", values, []))


ROWS = model(x=(TensorProto.FLOAT, ["N", 3]))
TWO = model(ids=(TensorProto.INT64, ["N", "S"]), scale=(TensorProto.FLOAT, ["N", 1]))


def rows(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)


def test_a_file_is_read_and_batched_in_order(tmp_path: Path) -> None:
    given_rows = rows(20)
    np.savez(tmp_path / "data.npz", x=given_rows)
    samples = read(tmp_path / "data.npz", ROWS)
    feeds = samples.feeds(8)
    assert [len(feed["x"]) for feed in feeds] == [8, 8, 4]
    assert np.array_equal(np.concatenate([feed["x"] for feed in feeds]), given_rows)


def test_compressed_and_column_ordered_arrays_are_read_as_they_are(tmp_path: Path) -> None:
    given_rows = np.asfortranarray(rows(5))
    np.savez_compressed(tmp_path / "data.npz", x=given_rows)
    assert np.array_equal(read(tmp_path / "data.npz", ROWS).feeds()[0]["x"], given_rows)


def test_a_folder_may_hold_samples_of_several_lengths(tmp_path: Path) -> None:
    for length in (4, 7):
        ids = np.arange(3 * length).reshape(3, length)
        np.savez(tmp_path / f"{length}.npz", ids=ids, scale=np.ones((3, 1), np.float32))
    feeds = read(tmp_path, TWO).feeds()
    assert [feed["ids"].shape for feed in feeds] == [(3, 4), (3, 7)]


def test_a_folder_of_npy_files_has_one_for_each_input(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.arange(6).reshape(2, 3))
    np.save(tmp_path / "scale.npy", np.ones((2, 1), np.float32))
    assert len(read(tmp_path, TWO)) == 2


def test_npy_files_of_any_name_are_samples_of_an_only_input(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", rows(2))
    np.save(tmp_path / "b.npy", rows(3, seed=1))
    assert len(read(tmp_path, ROWS)) == 5


def test_a_fixed_batch_is_filled_up_with_samples_that_were_there() -> None:
    fixed = model(x=(TensorProto.FLOAT, [4, 3]))
    given_rows = rows(6)
    feeds = from_arrays([{"x": given_rows}], fixed).feeds(100)
    assert [feed["x"].shape for feed in feeds] == [(4, 3), (4, 3)]
    seen = {row.tobytes() for feed in feeds for row in feed["x"]}
    assert seen == {row.tobytes() for row in given_rows}


def test_fewer_samples_than_a_fixed_batch_are_repeated() -> None:
    fixed = model(x=(TensorProto.FLOAT, [5, 3]))
    (feed,) = from_arrays([{"x": rows(2)}], fixed).feeds()
    assert feed["x"].shape == (5, 3)


def test_an_array_with_one_dimension_more_holds_whole_inputs() -> None:
    scalar = model(x=(TensorProto.FLOAT, ["N", 3]), t=(TensorProto.FLOAT, []))
    samples = from_arrays([{"x": rows(4), "t": np.arange(4, dtype=np.float32)}], scalar)
    feeds = samples.feeds()
    assert [(feed["x"].shape, feed["t"].shape, float(feed["t"])) for feed in feeds] == [
        ((1, 3), (), float(n)) for n in range(4)
    ]


def test_strings_are_fed_as_onnxruntime_takes_them() -> None:
    text = model(s=(TensorProto.STRING, ["N"]))
    (feed,) = from_arrays([{"s": np.array(["a", "bc"])}], text).feeds()
    assert feed["s"].dtype == object
    assert feed["s"].tolist() == ["a", "bc"]


def test_an_input_with_an_initializer_need_not_be_given() -> None:
    optional = model(x=(TensorProto.FLOAT, ["N", 3]), w=(TensorProto.FLOAT, [3]))
    optional.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "w"))
    assert len(from_arrays([{"x": rows(2)}], optional)) == 2


REFUSED = {
    "a name the model has not": ({"y": rows(2)}, "no input 'y'; it takes x: FP32"),
    "an input left out": ({}, "input 'x' is missing"),
    "another dtype": ({"x": rows(2).astype(np.float64)}, "'x' is float64; the model takes float32"),
    "another shape": ({"x": np.ones((2, 4), np.float32)}, r"'x' has shape \[2, 4\]; allowed is \[samples,3\]"),
    "a scalar": ({"x": np.float32(1)}, r"has shape \[\]"),
    "no values": ({"x": np.ones((0, 3), np.float32)}, r"shape \[0, 3\] and so holds no values"),
    "NaN": ({"x": np.array([[0, 0, 0], [0, np.nan, 0]], np.float32)}, "'x' holds NaN in sample 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(case: str) -> None:
    arrays, message = REFUSED[case]
    with pytest.raises(ConfigInvalid, match=message):
        from_arrays([{name: np.asarray(array) for name, array in arrays.items()}], ROWS)


def test_inputs_need_as_many_samples() -> None:
    with pytest.raises(ConfigInvalid, match="'ids' 2, 'scale' 3"):
        from_arrays([{"ids": np.zeros((2, 4), np.int64), "scale": np.ones((3, 1), np.float32)}], TWO)


def test_batches_of_different_fixed_sizes_are_refused() -> None:
    odd = model(a=(TensorProto.FLOAT, [2, 3]), b=(TensorProto.FLOAT, [3, 3]))
    with pytest.raises(ConfigInvalid, match="different sizes: 'a' 2, 'b' 3"):
        from_arrays([{"a": rows(6), "b": rows(6)}], odd)


def test_a_model_that_takes_a_sequence_is_refused() -> None:
    value = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    with pytest.raises(ModelInvalid, match="input 's' is seq"):
        from_arrays([{}], helper.make_model(helper.make_graph([], "g", [value], [])))


def test_pickled_objects_are_refused_without_unpickling(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigInvalid, match="holds Python objects"):
        read(tmp_path, ROWS)


def test_more_than_the_memory_allowed_is_refused_before_it_is_read(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 3)})
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(ConfigInvalid, match="12,000,000,000,000 bytes; 2,147,483,648 are allowed"):
        read(tmp_path / "data.npz", ROWS)


def test_a_truncated_array_is_refused_with_its_size(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", rows(4))
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-5])
    with pytest.raises(ConfigInvalid, match="announces 48 bytes and 43 were found"):
        read(tmp_path, ROWS)


@pytest.mark.parametrize(("content", "message"), [(b"", "cannot be read"), (b"PK\x03\x04nonsense", "cannot be read")])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(ConfigInvalid, match=message):
        read(tmp_path / "data.npz", ROWS)


def test_places_without_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"holds no \.npz or \.npy"):
        read(tmp_path, ROWS)
    with pytest.raises(ConfigInvalid, match="there is nothing at"):
        read(tmp_path / "absent", ROWS)
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(ConfigInvalid, match=r"ends in '\.csv'"):
        read(tmp_path / "data.csv", ROWS)


def test_one_sample_repeated_cannot_be_split() -> None:
    with pytest.raises(ConfigInvalid, match="5 samples, of which 1 differ"):
        split(from_arrays([{"x": np.repeat(rows(1), 5, axis=0)}], ROWS))


def test_zero_and_minus_zero_are_one_sample() -> None:
    with pytest.raises(ConfigInvalid, match="of which 1 differ"):
        split(from_arrays([{"x": np.array([[0, 0, 0], [0, -0.0, 0]], np.float32)}], ROWS))


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(0, 12), min_size=2, max_size=40).filter(lambda values: len(set(values)) > 1),
    seed=st.integers(0, 1000),
    held_out=st.floats(0.0, 1.0),
)
def test_halves_hold_every_sample_once_and_share_none(values: list[int], seed: int, held_out: float) -> None:
    array = np.array(values, np.float32)[:, None].repeat(3, axis=1)
    samples = from_arrays([{"x": array}], ROWS)
    parts = split(samples, seed, held_out=held_out)
    assert sorted(parts[0].chosen + parts[1].chosen) == sorted(samples.chosen)
    seen = [{row[0] for feed in part.feeds() for row in feed["x"]} for part in parts]
    assert all(seen)
    assert not seen[0] & seen[1]
    assert split(samples, seed, held_out=held_out) == parts
