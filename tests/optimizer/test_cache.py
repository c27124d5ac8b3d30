"""Results that are kept: found again for the same, and passed over when they are anything else."""

import logging
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from openclaw.devices.providers import CUDA_PROVIDER, TENSORRT_PROVIDER
from openclaw.errors import ConfigInvalid
from openclaw.optimizer import candidates, surroundings
from openclaw.optimizer.measuring import timing
from openclaw.optimizer.model import source
from openclaw.optimizer.optimize import optimize as optimize_all
from openclaw.optimizer.options import Options, checked
from openclaw.optimizer.recipe import Made, Recipe
from openclaw.optimizer.results.cache import Cache
from openclaw.optimizer.results.result import Result
from openclaw.optimizer.task import Task
from optimizer import models
from support.recorded import laid_out

KEY = "0" * 64
MACHINE = surroundings.read_machine(2)
VERSIONS = surroundings.read_versions()

# With the recipes alone: what other engines and ways to hold activations gain, is not for sure.
optimize = partial(optimize_all, engines=["onnxruntime"], memory="default")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times so little that a test ends soon; and whatever it is given, keeps a model that differs."""
    monkeypatch.setattr(timing, "HEAT", replace(timing.HEAT, rounds=3, slice_seconds=0.001))
    monkeypatch.setattr(timing, "FINAL", replace(timing.FINAL, slice_seconds=0.001))
    made = [Recipe("fewer", "fp32", lambda material, judge: Made(fewer()))]
    monkeypatch.setattr(candidates, "all_recipes", lambda: made)


def fewer() -> onnx.ModelProto:
    return models.wasteful(1)


def result(cache: Path | str | None) -> Result:
    return optimize(models.wasteful(), shapes={"x": (64, 256)}, cache=cache)


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("as_uri", [False, True])
def test_what_was_optimized_once_is_found_again(tmp_path: Path, *, as_uri: bool) -> None:
    where = tmp_path.as_uri() if as_uri else tmp_path
    first = result(where)
    again = result(where)
    assert not first.report.cached
    assert first.report.kept == "fewer"
    assert again.report.cached
    assert again.model == first.model
    assert again.report.model_copy(update={"cached": False, "seconds": 0.0}) == first.report.model_copy(
        update={"seconds": 0.0}
    )
    assert len(entries(tmp_path)) == 1


def test_that_nothing_was_kept_is_found_again_too(tmp_path: Path) -> None:
    model = fewer()
    first = optimize(model, cache=tmp_path)
    again = optimize(model, cache=tmp_path)
    assert first.report.kept is None
    assert again.report.cached
    assert again.model == model
    assert entries(tmp_path)[0].stat().st_size < 10_000, "the exported model is not stored a second time"


def test_no_cache_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCLAW_CACHE_DIR", str(tmp_path))
    assert not result(None).report.cached
    assert not entries(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "longer", "foreign", "other key"])
def test_an_entry_that_is_not_whole_is_passed_over_and_written_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = result(tmp_path)
    (entry,) = entries(tmp_path)
    data = bytearray(entry.read_bytes())
    if damage == "other key":
        key, cache = "1" * 64, Cache(tmp_path)
        cache.save(key, first)
        data = bytearray((tmp_path / key).read_bytes())
        (tmp_path / key).unlink()
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
    else:
        data = {"empty": b"", "cut": data[:-1], "longer": data + b"x", "foreign": b"PK\x03\x04" * 999}[damage]
    entry.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        again = result(tmp_path)
    assert not again.report.cached
    assert "is passed over" in caplog.text
    assert result(tmp_path).report.cached


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(tmp_path / "cache")
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").write_text("a file")
    assert cache.load(KEY, models.mlp()) is None
    with caplog.at_level(logging.WARNING):
        cache.save(KEY, result(None))
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("http://host/cache", "cache: http:// cannot be written to; allowed: a folder, file://, s3://, gs://, az://"),
        ("ftp://host/cache", "cache: model uri has the scheme 'ftp'"),
        ("/proc/nowhere/cache", "cache: the folder /proc/nowhere/cache cannot be made"),
    ],
)
def test_a_place_that_cannot_be_is_refused(where: str, told: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        Cache(where)
    assert told in str(caught.value)


def key(model: onnx.ModelProto | None = None, options: Options | None = None, **more: object) -> str | None:
    given = {"machine": MACHINE, "versions": VERSIONS, **more}
    return Task(source.read(model or models.mlp()), options or Options(), **given).key()  # type: ignore[arg-type]


def test_the_key_tells_apart_everything_that_decides(tmp_path: Path) -> None:
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    np.savez(first, x=np.zeros((2, 16), np.float32))
    np.savez(second, x=np.ones((2, 16), np.float32))
    arguments = {
        "precision": "auto", "calibration": None, "accuracy_budget": None, "metric": None, "shapes": None,
        "target_latency": None, "only": (),
    }  # fmt: skip
    changes: list[dict[str, object]] = [
        {},
        {"precision": "fp32"},
        {"calibration": first},
        {"calibration": second},
        {"accuracy_budget": "top1>=0.9"},
        {"accuracy_budget": "top1>=0.8"},
        {"accuracy_budget": "metric>=0.8", "metric": metric_a},
        {"accuracy_budget": "metric>=0.8", "metric": metric_b},
        {"shapes": {"x": (1, 16)}},
        {"shapes": {"x": (2, 16)}},
        {"target_latency": 0.1},
        {"only": ("fewer",)},
        {"time_limit": 50.0},
        {"engines": ("onnxruntime",)},
        {"engines": ("onnxruntime", "openvino")},
        {"memory": "least"},
        {"memory": "default"},
        {"max_batch_size": 4},
    ]
    keys = [key(options=checked(**{**arguments, **change})) for change in changes]  # type: ignore[arg-type]
    keys += [
        key(models.mlp(width=32)),
        key(machine=MACHINE.model_copy(update={"threads": 1})),
        key(machine=MACHINE.model_copy(update={"instructions": ["neon"]})),
        key(machine=MACHINE.model_copy(update={"processor": "another"})),
        key(versions={**VERSIONS, "onnxruntime": "9.9"}),
        key(versions={**VERSIONS, "optimizer": "999"}),
        key(gpus=["NVIDIA A100"]),
        key(gpus=["NVIDIA A100", "NVIDIA T4"]),
    ]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert key(options=checked(**arguments)) == key(options=checked(**arguments))  # type: ignore[arg-type]


def test_versions_are_told_whichever_package_brings_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(name: str) -> str:
        if name == "onnxruntime":
            raise PackageNotFoundError(name)  # as where onnxruntime-gpu took its place
        return version(name)

    monkeypatch.setattr(surroundings, "version", installed)
    assert surroundings.read_versions() == VERSIONS
    assert VERSIONS["onnxruntime"] == onnxruntime.__version__


def test_gpus_are_those_that_an_engine_of_onnxruntime_may_run_on(tmp_path: Path) -> None:
    root = laid_out("nvidia-two-gpus", tmp_path)
    engines = {"cuda": CUDA_PROVIDER, "tensorrt": TENSORRT_PROVIDER}
    found = surroundings.read_gpus(root, engines=engines)
    assert len(found) == 2
    assert all("NVIDIA" in name for name in found)
    assert surroundings.read_gpus(root, engines={}) == []
    assert surroundings.read_gpus(laid_out("plain-vm", tmp_path / "other"), engines=engines) == []
    assert surroundings.read_gpus() == [], "the onnxruntime of these tests has no engine for GPUs"


def metric_a(reference: object, candidate: object) -> float:
    return 1.0


def metric_b(reference: object, candidate: object) -> float:
    return 2.0


def test_a_metric_whose_code_cannot_be_read_is_not_cached() -> None:
    namespace: dict[str, object] = {}
    exec("def metric(reference, candidate): return 1.0", namespace)
    budget = checked(
        precision="auto", calibration=None, accuracy_budget="metric>=0.5", metric=namespace["metric"],  # type: ignore[arg-type]
        shapes=None, target_latency=None, only=(),
    )  # fmt: skip
    assert key(options=budget) is None
