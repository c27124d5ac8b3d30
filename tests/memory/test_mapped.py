"""Models in the form that is mapped into memory: made, found again, shared, repaired, refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from openclaw.errors import CannotMap
from openclaw.execute.session import Model
from openclaw.storage.mapped import MappedForms
from support.products import SIZE, TENSOR, products

INPUT = {"x": np.linspace(-1, 1, SIZE, dtype=np.float32)[None]}


def answer(path: Path, *, mapped: bool = False) -> np.ndarray:
    (result,) = Model.from_file(path, threads=1, mapped=mapped).run(INPUT).values()
    return result


def tensors(cache: Path) -> list[Path]:
    return sorted((cache / "mapped" / "tensors").iterdir())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return products(tmp_path / "model.onnx", 1, 2)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_a_mapped_model_answers_as_the_model_does(model: Path, cache: Path) -> None:
    form = MappedForms(cache).form_of(model)
    assert form.weights == 2 * TENSOR
    assert form.small < 2000
    np.testing.assert_allclose(answer(form.path, mapped=True), answer(model), rtol=1e-4, atol=1e-5)


def test_models_with_equal_tensors_share_their_files(model: Path, cache: Path, tmp_path: Path) -> None:
    forms = MappedForms(cache)
    forms.form_of(model)
    other = products(tmp_path / "other.onnx", 2, 3)
    form = forms.form_of(other)
    assert len(tensors(cache)) == 3
    np.testing.assert_allclose(answer(form.path, mapped=True), answer(other), rtol=1e-4, atol=1e-5)


def test_a_form_is_found_again_by_another_process(model: Path, cache: Path) -> None:
    form = MappedForms(cache).form_of(model)
    written = [path.stat().st_mtime_ns for path in (form.path, *tensors(cache))]
    assert MappedForms(cache).form_of(model) == form
    assert [path.stat().st_mtime_ns for path in (form.path, *tensors(cache))] == written


def test_a_file_that_changed_has_another_form(model: Path, cache: Path) -> None:
    forms = MappedForms(cache)
    before = forms.form_of(model)
    products(model, 3)
    after = forms.form_of(model)
    assert after.path != before.path
    np.testing.assert_allclose(answer(after.path, mapped=True), answer(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("known", [True, False], ids=["in the process that made it", "in another process"])
@pytest.mark.parametrize("harm", ["lost", "cut short", "overwritten"])
@pytest.mark.parametrize("which", ["tensor", "graph", "note"])
def test_what_is_lost_or_damaged_is_made_anew(model: Path, cache: Path, *, which: str, harm: str, known: bool) -> None:
    forms = MappedForms(cache)
    form = forms.form_of(model)
    path = {"tensor": tensors(cache)[0], "graph": form.path, "note": form.path.with_suffix(".json")}[which]
    data = path.read_bytes()
    os.utime(path, ns=(0, 0))
    match harm:
        case "lost":
            path.unlink()
        case "cut short":
            path.write_bytes(data[: len(data) // 2])
        case _:
            path.write_bytes(bytes(len(data)))
    found = (forms if known else MappedForms(cache)).form_of(model)
    assert path.read_bytes() == data
    np.testing.assert_allclose(answer(found.path, mapped=True), answer(model), rtol=1e-4, atol=1e-5)


def test_a_model_with_its_weights_outside_is_mapped_as_it_is(model: Path, cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "outside.onnx"
    onnx.save(onnx.load(model), path, save_as_external_data=True, location="data", size_threshold=1024)
    form = MappedForms(cache).form_of(path)
    assert (form.path, form.weights) == (path, 2 * TENSOR)
    np.testing.assert_allclose(answer(form.path, mapped=True), answer(model), rtol=1e-4, atol=1e-5)


def test_a_small_model_has_nothing_to_map(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    onnx.save(helper.make_model(helper.make_graph([], "small", [x], [x])), path)
    with pytest.raises(CannotMap, match=r"small\.onnx has no large weights that could be mapped"):
        MappedForms(cache).form_of(path)


def test_what_is_no_model_cannot_be_mapped(model: Path, cache: Path) -> None:
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(CannotMap, match="is not an ONNX model, or was cut short"):
        MappedForms(cache).form_of(model)


def test_what_crashes_left_is_removed_but_not_what_is_being_written(model: Path, cache: Path, tmp_path: Path) -> None:
    forms = MappedForms(cache)
    forms.form_of(model)
    parts = cache / "mapped" / "parts"
    for name, hours in (("old", 2), ("new", 0)):
        (parts / name).touch()
        written = (parts / name).stat().st_mtime - 3600 * hours
        os.utime(parts / name, (written, written))
    forms.form_of(products(tmp_path / "other.onnx", 5))
    assert [path.name for path in parts.iterdir()] == ["new"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A folder with 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    return folder


def test_a_full_disk_is_told_with_what_is_needed(small_disk: Path, tmp_path: Path) -> None:
    try:
        forms = MappedForms(small_disk)
        forms.form_of(products(tmp_path / "fits.onnx", 1))
        with pytest.raises(CannotMap, match=r"needs 2,\d+,\d+ bytes in the cache folder \S+ .* and \S+ are left; make"):
            forms.form_of(products(tmp_path / "large.onnx", 2, 3))
        # What is there goes on.
        assert forms.form_of(tmp_path / "fits.onnx").weights == TENSOR
    finally:
        subprocess.run(["umount", "-l", str(small_disk)], check=True)


_SHOWS = """
import re, sys
from pathlib import Path
import numpy as np
from openclaw.devices.memory import anonymous_bytes
from openclaw.execute.session import Model
path, mapped = Path(sys.argv[1]), sys.argv[2] == "mapped"
before = anonymous_bytes()
model = Model.from_file(path, threads=1, mapped=mapped)
model.run({"x": np.zeros((1, 512), np.float32)})
print(anonymous_bytes() - before)
"""


def taken(path: Path, how: str) -> int:
    """Bytes that no file stands behind, of a process that opens the model."""
    done = subprocess.run([sys.executable, "-c", _SHOWS, str(path), how], capture_output=True, text=True, check=True)
    return int(re.findall(r"\d+", done.stdout)[-1])


def test_weights_that_are_mapped_take_no_memory_that_the_kernel_could_not_drop(cache: Path, tmp_path: Path) -> None:
    path = products(tmp_path / "large.onnx", *range(40))
    form = MappedForms(cache).form_of(path)
    assert form.weights == 40 * TENSOR
    assert taken(form.path, "mapped") < form.weights / 4
    assert taken(path, "packed") > form.weights
