"""`spec.runtime.optimize` in local mode: the step runs before the server, and its result is shown and shared."""

from pathlib import Path
from typing import Any

import aiohttp
import onnx

from optimizer import models
from support.local_mode import LocalMode, service, write, write_model

SCALING = {"minReplicas": 2, "maxReplicas": 2}


def optimized(name: str, uri: str, **optimize: Any) -> dict[str, Any]:
    runtime = {"args": ["--drain-delay", "1"], "threads": 1, "optimize": {"mode": "fp32", **optimize}}
    return service(name, uri, runtime=runtime, scaling=SCALING)


async def outcome(local: LocalMode, name: str) -> dict[str, Any]:
    """What the status shows."""
    found = await local.get(name)
    assert found is not None
    (entry,) = found["status"]["model"]["optimization"]
    return dict(entry)


async def test_pods_share_one_optimization_and_serve_what_it_made(
    local: LocalMode, session: aiohttp.ClientSession
) -> None:
    nodes = [onnx.helper.make_node("Identity", [f"x{i}" if i else "x"], [f"x{i + 1}"]) for i in range(5)]
    nodes.append(onnx.helper.make_node("Relu", ["x5"], ["y"]))
    model = models.made(nodes, [models.tensor("x", "n", 4)], [models.tensor("y", "n", 4)])
    onnx.save(model, local.folder / "relu.onnx")
    ended = local.up(write(local.folder / "shared.yaml", optimized("shared", "file://./relu.onnx")))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    entry = await outcome(local, "shared")
    assert (entry["pods"], entry["cached"], entry["mode"]) == (2, 1, "fp32")
    assert entry["outcome"] in {"Optimized", "NothingFaster"}, entry
    assert await local.infer(session, "shared") == [1, 2, 3, 4]
    logs = local.run("logs", "shared").stdout
    assert f"{entry['outcome']}: " in logs
    assert logs.count("is served in its optimized form") == (2 if entry["outcome"] == "Optimized" else 0)
    assert list((local.folder / "cache" / "optimized").glob("?" * 64))


async def test_what_goes_wrong_is_shown_and_the_model_is_served_as_it_is(
    local: LocalMode, session: aiohttp.ClientSession
) -> None:
    absent = {"uri": "file://./absent.npz"}
    document = optimized("failing", "file://./two.onnx", mode="auto", calibration=absent)
    ended = local.up(write(local.folder / "failing.yaml", document))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    entry = await outcome(local, "failing")
    assert entry["outcome"] == "Failed"
    assert f"calibration: {local.folder / 'absent.npz'} cannot be read" in entry["reason"]
    assert await local.infer(session, "failing") == [2, 4, 6, 8]


async def test_without_the_extra_it_says_how_to_install_it(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    (stubs / "onnx.py").write_text("raise ModuleNotFoundError('No module named onnx', name='onnx')\n")
    lacking = LocalMode(tmp_path)
    lacking.environment["PYTHONPATH"] = str(stubs)
    write_model(tmp_path / "two.onnx", factor=2)
    try:
        ended = lacking.up(write(tmp_path / "lacking.yaml", optimized("lacking", "file://./two.onnx")))
        assert ended.returncode == 0, ended.stdout + ended.stderr
        entry = await outcome(lacking, "lacking")
        assert entry["reason"] == "optimizing needs onnx, which is not installed: pip install 'openclaw[optimize]'"
        assert await lacking.infer(session, "lacking") == [2, 4, 6, 8]
    finally:
        lacking.run("down")


async def test_a_model_that_is_missing_is_told_as_without_the_step(local: LocalMode) -> None:
    ended = local.up(write(local.folder / "missing.yaml", optimized("missing", "file://./nowhere.onnx")))
    assert ended.returncode == 1
    assert (await local.ready("missing")).reason == "ModelNotFound"
