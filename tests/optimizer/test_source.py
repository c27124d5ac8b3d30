"""What is read, and what each bad model is told."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from openclaw.errors import ModelInvalid, ModelNotFound
from openclaw.optimizer.model import source as sources
from optimizer import models


def saved(folder: Path, model: onnx.ModelProto, *, outside: bool = False) -> Path:
    path = folder / "model.onnx"
    if outside:
        onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    else:
        onnx.save(model, path)
    return path


def test_a_file_and_the_model_in_it_are_the_same_source(tmp_path: Path) -> None:
    model = models.mlp()
    path = saved(tmp_path, model)
    found = sources.read(path)
    assert found.model == model
    assert found.name == "model.onnx"
    assert found.digest == sources.read(str(path)).digest
    assert found.untouched is None


def test_the_users_model_is_not_changed() -> None:
    model = models.unsorted()
    before = model.SerializeToString()
    sources.read(model)
    assert model.SerializeToString() == before


def test_nodes_in_an_order_that_cannot_run_are_sorted() -> None:
    found = sources.read(models.unsorted())
    assert [node.op_type for node in found.model.graph.node] == ["Neg", "Relu"]
    sources.check_source(found)


def test_a_node_comes_after_what_a_graph_nested_in_it_reads() -> None:
    model = models.branching()
    model.graph.node[0].input[0] = "late"
    for attribute in model.graph.node[0].attribute:
        attribute.g.node[0].input[0] = "shifted"
    model.graph.node.append(helper.make_node("Not", ["flag"], ["late"]))
    model.graph.node.append(helper.make_node("Neg", ["x"], ["shifted"]))
    found = sources.read(model)
    assert [node.op_type for node in found.model.graph.node][-1] == "If"
    sources.check_source(found)


def test_a_cycle_is_told_by_its_nodes() -> None:
    with pytest.raises(ModelInvalid, match=r"has a cycle, so it can never run: .*(first|second).* <- .*(first|second)"):
        sources.read(models.cyclic())


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"there is no model at .*none\.onnx"):
        sources.read(tmp_path / "none.onnx")
    with pytest.raises(ModelInvalid, match="is a folder"):
        sources.read(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_model_that_was_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.onnx"
    data = models.mlp().SerializeToString()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelInvalid, match=r"cut\.onnx"):
        sources.check_source(sources.read(path))


def test_any_bytes_are_refused_with_a_sentence(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "noise.onnx"
    for size in (1, 10, 1000):
        path.write_bytes(rng.bytes(size))
        with pytest.raises(ModelInvalid, match=r"noise\.onnx"):
            sources.check_source(sources.read(path))


def test_weights_beside_the_model_are_read_and_belong_to_the_digest(tmp_path: Path) -> None:
    model = models.mlp()
    path = saved(tmp_path, model, outside=True)
    found = sources.read(path)
    assert {one.data_location for one in found.model.graph.initializer} == {TensorProto.DEFAULT}
    assert found.bytes > model.ByteSize() * 0.9
    weights = tmp_path / "weights.bin"
    data = bytearray(weights.read_bytes())
    data[5] ^= 1
    weights.write_bytes(data)
    assert sources.read(path).digest != found.digest


def test_missing_weights_are_told_by_the_name_of_their_file(tmp_path: Path) -> None:
    path = saved(tmp_path, models.mlp(), outside=True)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelInvalid, match=r"tensor 'w0' .*'weights\.bin', and there is no file"):
        sources.read(path)


def test_weights_that_were_cut_short_are_told_with_their_size(tmp_path: Path) -> None:
    path = saved(tmp_path, models.mlp(), outside=True)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelInvalid, match=r"has 100; it was cut short"):
        sources.read(path)


def test_weights_outside_of_the_models_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    path = saved(tmp_path / "inside", models.mlp(), outside=True)
    (tmp_path / "inside" / "weights.bin").rename(tmp_path / "weights.bin")
    model = onnx.load(path, load_external_data=False)
    for one in model.graph.initializer:
        for entry in one.external_data:
            if entry.key == "location":
                entry.value = "../weights.bin"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelInvalid, match="not in the model's folder"):
        sources.read(path)


def test_a_model_in_memory_whose_weights_are_in_a_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, models.mlp(), outside=True)
    with pytest.raises(ModelInvalid, match=r"lie in the file 'weights\.bin'; give the path"):
        sources.read(onnx.load(path, load_external_data=False))


def test_more_than_2_gib_with_weights_is_passed_through(tmp_path: Path) -> None:
    path = saved(tmp_path, models.mlp(), outside=True)
    model = onnx.load(path, load_external_data=False)
    with (tmp_path / "weights.bin").open("r+b") as file:
        file.truncate(2**31 + 10)  # A hole: it takes no room on the disk.
    path.write_bytes(model.SerializeToString())
    found = sources.read(path)
    assert found.untouched is not None
    assert "must stay below 2 GiB" in found.untouched
    assert found.weights == (tmp_path / "weights.bin",)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (models.sequence(), "input 'parts' is a sequence, and only tensors are compared"),
        (models.any_rank(), "input 'x' may have any number of dimensions"),
        (models.mlp(), None),
        (models.words(), None),
        (models.branching(), None),
    ],
)
def test_what_cannot_be_compared_is_known(model: onnx.ModelProto, reason: str | None) -> None:
    found = next(sources.untouchable(model), None)
    assert found == reason or (reason is not None and found is not None and found.startswith(reason))
