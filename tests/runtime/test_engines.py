"""Models that name the engine which they run on."""

import logging
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import openclaw
from openclaw.config import ModelConfig
from openclaw.execute import engines
from openclaw.serving.loading import load

ROWS = np.random.default_rng(5).standard_normal((3, 64)).astype(np.float32)
HAS_WHEEL = platform.machine() == "x86_64" and platform.system() == "Linux"


def naming(path: Path, engine: str, folder: Path, **properties: str) -> Path:
    """A copy of a model that names an engine."""
    model = onnx.load(path)
    helper.set_model_props(model, {engines.PROPERTY: engine, **properties})
    copy = folder / f"{path.stem}-{engine}.onnx"
    onnx.save(model, copy)
    return copy


def test_onnxruntimes_own_kernels_are_always_there_and_openvino_where_its_plugin_is() -> None:
    assert engines.installed()[0] == engines.OWN
    assert (engines.OPENVINO in engines.installed()) == HAS_WHEEL


def test_a_model_runs_on_the_engine_that_it_names_with_the_same_answers(models: Any, tmp_path: Path) -> None:
    plain = openclaw.load(models.digits())
    named = openclaw.load(naming(models.digits(), "openvino", tmp_path))
    assert plain.engine == "onnxruntime"
    assert named.engine == ("openvino" if HAS_WHEEL else "onnxruntime")
    np.testing.assert_allclose(named.run({"image": ROWS})["scores"], plain.run({"image": ROWS})["scores"], rtol=1e-4)


# What computes products in bfloat16: OpenVINO on x86-64, onnxruntime's own kernels on ARM.
IN_BFLOAT16 = engines.multiplies_bf16() and (HAS_WHEEL or platform.machine() == "aarch64")


def test_a_model_that_asks_for_bfloat16_gets_it_where_the_cpu_has_it_and_floats_elsewhere(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((8, 256), (256, 256)))
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [8, 256]) for name in "xy"]
    product = helper.make_node("MatMul", ["x", "weight"], ["y"])
    graph = helper.make_graph([product], "product", ends[:1], ends[1:], [numpy_helper.from_array(weight, "weight")])
    path = tmp_path / "product.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)

    engine = engines.OPENVINO if HAS_WHEEL else engines.OWN
    exact = openclaw.load(naming(path, engine, tmp_path)).run({"x": x})["y"]
    asked = naming(path, engine, tmp_path, **{engines.PRECISION: engines.BF16})
    rounded = openclaw.load(asked).run({"x": x})["y"]
    # 8 bits of mantissa in the factors; the sums of 256 products are about 16.
    np.testing.assert_allclose(rounded, exact, atol=0.5)
    assert (np.abs(rounded - exact).max() > 1e-3) == IN_BFLOAT16


def test_a_model_that_names_an_engine_which_is_not_there_runs_on_onnxruntime_and_the_log_says_so(
    models: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = openclaw.load(naming(models.digits(), "tensorrt", tmp_path))
    assert model.engine == "onnxruntime"
    assert "digits-tensorrt.onnx is fastest on tensorrt, which is not installed" in caplog.text
    assert model.run({"image": ROWS})["scores"].shape == (3, 10)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_model_whose_engine_does_not_start_runs_on_onnxruntime_and_the_log_says_so(
    models: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with onnxruntime-gpu where a library of CUDA is missing: the engine is there, and its provider is left out.
    monkeypatch.setattr(engines, "installed", lambda: (engines.OWN, "cuda"))
    with caplog.at_level(logging.WARNING):
        model = openclaw.load(naming(models.digits(), "cuda", tmp_path))
    assert model.engine == "onnxruntime"
    assert "CUDAExecutionProvider could not be started" in caplog.text
    assert model.run({"image": ROWS})["scores"].shape == (3, 10)


def test_a_model_that_names_no_engine_loads_none(models: Any) -> None:
    program = f"import sys, openclaw; openclaw.load({str(models.digits())!r}); print(engine in sys.modules)"
    program = f"engine = 'onnxruntime_ep_openvino'; {program}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


def test_a_damaged_model_that_names_an_engine_is_refused_for_its_damage(models: Any, tmp_path: Path) -> None:
    path = naming(models.digits(), "openvino", tmp_path)
    model = onnx.load(path)
    model.graph.node[0].op_type = "Nothing"
    onnx.save(model, path)
    with pytest.raises(openclaw.ModelInvalid, match="Nothing"):
        openclaw.load(path)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_server_answers_from_the_engine_that_its_model_names(
    models: Any, start_server: Callable[..., Any], tmp_path: Path, workers: int
) -> None:
    path = naming(models.digits(), "openvino", tmp_path)
    server = start_server(path, "--name", "digits", "--workers", workers, "--threads", 1, "--drain-delay", 0)
    server.wait_ready()
    request = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [3, 64], "data": ROWS.ravel().tolist()}]}
    async with (
        aiohttp.ClientSession(server.url) as client,
        client.post("/v2/models/digits/infer", json=request) as answer,
    ):
        document = await answer.json()
    expected = openclaw.load(models.digits()).run({"image": ROWS})["scores"]
    np.testing.assert_allclose(document["outputs"][0]["data"], expected.ravel(), rtol=1e-4)
    assert server.stop() == 0
    assert ("thread(s) of openvino" in server.log) == HAS_WHEEL
    assert "Traceback" not in server.log


def test_a_small_model_gets_a_session_of_one_thread_for_quick_runs_and_no_other_does(
    models: Any, tmp_path: Path
) -> None:
    def inline(path: Path, threads: int = 2) -> Any:
        config = ModelConfig(name="m", uri=path.as_uri())
        return load(config, path, threads=threads).inline

    small = models.digits()
    assert inline(small).threads == 1
    np.testing.assert_array_equal(
        inline(small).run({"image": ROWS})["scores"], openclaw.load(small, threads=2).run({"image": ROWS})["scores"]
    )
    assert inline(small, threads=1) is None
    outside = tmp_path / "outside.onnx"
    onnx.save(onnx.load(small), outside, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert inline(outside) is None
    large = onnx.load(small)
    large.doc_string = " " * 2**22
    onnx.save(large, tmp_path / "large.onnx")
    assert inline(tmp_path / "large.onnx") is None
