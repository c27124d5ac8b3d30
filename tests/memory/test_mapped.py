"""Models in the form that is mapped into memory: made, found again, shared, repaired, refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from openclaw.errors import CannotMap
from openclaw.execute.session import Model
from openclaw.graph.weights import LARGE
from openclaw.storage.mapped import MappedForms
from support.disks import enlarge, small_disk
from support.products import SIZE, TENSOR, products

MIB = 1 << 20
VERSIONS = {"first": range(40), "second": range(39, -1, -1), "other": range(100, 140)}
"""Two versions of a model have the same matrices in another order."""
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


def test_a_full_disk_is_told_with_what_is_needed(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 3 * MIB) as disk:
        forms = MappedForms(disk)
        forms.form_of(products(tmp_path / "fits.onnx", 1))
        with pytest.raises(CannotMap, match=r"needs 2,\d+,\d+ bytes in the cache folder \S+ .* and \S+ are left; make"):
            forms.form_of(products(tmp_path / "large.onnx", 2, 3))
        # What is there goes on.
        assert forms.form_of(tmp_path / "fits.onnx").weights == TENSOR


def scattered(path: Path, count: int) -> Path:
    """A model of tensors that each need a page of the disk for one number alone."""
    names = [f"x{i}" if i else "x" for i in range(count + 1)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [LARGE // 4 + 1]) for name in (names[0], names[-1]))
    tensors = [numpy_helper.from_array(np.full(LARGE // 4 + 1, i, np.float32), f"w{i}") for i in range(count)]
    nodes = [helper.make_node("Add", [names[i], f"w{i}"], [names[i + 1]]) for i in range(count)]
    graph = helper.make_graph(nodes, "scattered", [x], [y], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_disk_that_fills_up_while_a_form_is_written_is_told_and_half_a_file_is_never_found(tmp_path: Path) -> None:
    count, page = 600, os.sysconf("SC_PAGESIZE")
    path = scattered(tmp_path / "scattered.onnx", count)
    numbers, pages = count * (LARGE + 4), count * (LARGE + page)
    room = (path.stat().st_size + MIB + pages) // 2 // page * page
    assert numbers + MIB < room < pages, "or it is known before that there is no room"
    with small_disk(tmp_path / "disk", room) as disk:
        forms = MappedForms(disk)
        with pytest.raises(CannotMap, match=r"scattered\.onnx does not fit into the cache folder .*: no space is left"):
            forms.form_of(path)
        assert 0 < len(tensors(disk)) < count
        assert {tensor.stat().st_size for tensor in tensors(disk)} == {LARGE + 4}
        assert list((disk / "mapped" / "parts").iterdir()) == []
        assert list((disk / "mapped").glob("*.onnx")) == []
        enlarge(disk, 2 * pages)
        form = forms.form_of(path)
        model = Model.from_file(form.path, threads=1, mapped=True)
        (result,) = model.run({"x": np.zeros(LARGE // 4 + 1, np.float32)}).values()
        assert set(result) == {count * (count - 1) / 2}
        model.close()


_MAKES = """
import sys
from pathlib import Path
import numpy as np
from openclaw.execute.session import Model
from openclaw.storage.mapped import MappedForms
forms = MappedForms(Path(sys.argv[1]))
print("there", flush=True)
sys.stdin.read(1)
form = forms.form_of(Path(sys.argv[2]))
model = Model.from_file(form.path, threads=1, mapped=True)
(answer,) = model.run({"x": np.linspace(-1, 1, 512, dtype=np.float32)[None]}).values()
np.save(sys.argv[3], answer)
print(form.path, flush=True)
"""


def test_processes_that_make_the_same_form_at_once_end_with_one_that_each_of_them_can_open(
    cache: Path, tmp_path: Path
) -> None:
    path = products(tmp_path / "large.onnx", *range(12))
    answers = [tmp_path / f"{number}.npy" for number in range(3)]
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", _MAKES, str(cache), str(path), str(file)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for file in answers
    ]  # fmt: skip
    assert [each.stdout.readline() for each in makers if each.stdout is not None] == ["there\n"] * len(makers)
    for each in makers:
        assert each.stdin is not None
        each.stdin.write("g")
        each.stdin.flush()
    told = {each.communicate(timeout=60)[0].strip() for each in makers}
    assert [each.returncode for each in makers] == [0] * len(makers)
    (graph,) = (cache / "mapped").glob("*.onnx")
    assert told == {str(graph)}
    assert len(tensors(cache)) == 12
    assert [tensor.name for tensor in tensors(cache)] == [
        sha256(tensor.read_bytes()).hexdigest() for tensor in tensors(cache)
    ]
    assert list((cache / "mapped" / "parts").iterdir()) == []
    for file in answers:
        np.testing.assert_allclose(np.load(file), answer(path), rtol=1e-4, atol=1e-5)


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
    form, small = (MappedForms(cache).form_of(each) for each in (path, products(tmp_path / "small.onnx", 0)))
    assert form.weights == 40 * TENSOR
    # What any session takes, or an emulator for it, is no matter of weights.
    assert taken(form.path, "mapped") - taken(small.path, "mapped") < form.weights / 4
    assert taken(path, "packed") > form.weights


_HOLDS = """
import re, sys
from pathlib import Path
import numpy as np
from openclaw.execute.session import Model
def held():
    return int(re.search(r"^Pss: +(\\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.M)[1]) << 10
how, *paths = sys.argv[1:]
models, before = [], held()
for path in paths:
    models.append(Model.from_file(Path(path), threads=1, mapped=how == "mapped"))
    models[-1].run({"x": np.zeros((1, 512), np.float32)})
    now = held()
    print(now - before)
    before = now
"""


def grown(how: str, *paths: Path) -> list[int]:
    """Bytes by which a process grows with each model that it opens; pages that are mapped twice count once."""
    command = [sys.executable, "-c", _HOLDS, how, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


def test_models_with_equal_weights_take_the_memory_of_one_where_they_are_mapped_and_only_there(
    cache: Path, tmp_path: Path
) -> None:
    models = [products(tmp_path / f"{name}.onnx", *seeds) for name, seeds in VERSIONS.items()]
    forms = [MappedForms(cache).form_of(path) for path in models]
    size = forms[0].weights
    first, same, different = grown("mapped", *(form.path for form in forms))
    assert first > size
    assert same < size / 4
    assert different > size / 2
    assert min(grown("packed", *models[:2])) > size * 0.8
