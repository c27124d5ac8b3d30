"""``openclaw optimize``: what it writes, what it shows, and what it says about a wrong option."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from openclaw import cli
from openclaw.errors import EX_CONFIG
from openclaw.optimizer import candidates
from openclaw.optimizer.measuring import timing
from openclaw.optimizer.recipe import Made, Recipe
from optimizer import models


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Times little, in slices that outlast the turn of another process, and tries one recipe."""
    monkeypatch.setattr(timing, "HEAT", replace(timing.HEAT, rounds=3, slice_seconds=0.01))
    monkeypatch.setattr(timing, "FINAL", replace(timing.FINAL, slice_seconds=0.01))
    made = [Recipe("fewer", "fp32", lambda material, judge: Made(models.wasteful(1)))]
    monkeypatch.setattr(candidates, "all_recipes", lambda: made)
    monkeypatch.setenv("OPENCLAW_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    onnx.save(models.wasteful(), "in.onnx")


def run(*words: str) -> Result:
    """Optimizes with the recipes alone: what other engines and ways to hold activations gain, is not for sure."""
    alone = ["--engine", "onnxruntime", "--memory", "default"]
    return CliRunner().invoke(cli.main, ["optimize", "in.onnx", "-o", "out.onnx", *alone, *words])


def test_the_result_is_written_and_shown_and_reported(tmp_path: Path) -> None:
    ended = run("--shape", "x=64,256", "--report", "report.json")
    assert ended.exit_code == 0, ended.output
    assert onnx.load("out.onnx") == models.wasteful(1)
    assert "fewer is kept" in ended.stdout
    assert "[1/1] fewer: " in ended.stderr, "without a terminal progress is lines"
    report = json.loads(Path("report.json").read_text())
    assert report["kept"] == "fewer"
    assert report["shapes"] == [{"x": [64, 256]}]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"in.onnx", "out.onnx", "report.json", "cache"}


def test_what_is_written_can_be_read_by_whom_the_mask_allows() -> None:
    previous = os.umask(0o027)
    try:
        assert run("--shape", "x=64,256").exit_code == 0
    finally:
        os.umask(previous)
    assert Path("out.onnx").stat().st_mode & 0o777 == 0o640


def test_the_cache_is_used_unless_it_is_off() -> None:
    assert "(from the cache)" not in run("--shape", "x=64,256").stdout
    assert "(from the cache)" in run("--shape", "x=64,256").stdout.replace("\n", " ")
    assert "(from the cache)" not in run("--shape", "x=64,256", "--cache", "off").stdout.replace("\n", " ")
    assert "(from the cache)" not in run("--shape", "x=64,256", "--cache", "elsewhere").stdout.replace("\n", " ")
    assert "(from the cache)" in run("--shape", "x=64,256", "--cache", "elsewhere").stdout.replace("\n", " ")


def test_a_failure_leaves_the_output_as_it_was() -> None:
    Path("out.onnx").write_bytes(b"earlier")
    Path("in.onnx").write_bytes(b"cut")
    ended = run()
    assert ended.exit_code == EX_CONFIG
    assert "in.onnx (3 bytes) is not an ONNX model, or was cut short" in ended.stderr
    assert Path("out.onnx").read_bytes() == b"earlier"


def test_weights_beside_the_model_come_along_where_it_passes_through(tmp_path: Path) -> None:
    onnx.save(models.mlp(), "in.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = Path("in.onnx").read_bytes()
    with Path("weights.bin").open("r+b") as file:
        file.truncate(2**31 + 10)
    here = run()
    assert here.exit_code == 0, here.output
    assert Path("out.onnx").read_bytes() == before
    assert "Passed through untouched" in here.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--precision", "int7"], "--precision: it is 'int7'; allowed: auto, fp32, int8, int4, bf16"),
        (["--accuracy-budget", "top5>=1"], "--accuracy-budget: 'top5' is no metric"),
        (["--metric", "nothing", "--accuracy-budget", "metric>=1"], "--metric: 'nothing' names no function"),
        (["--target-latency", "-1"], "--target-latency: it is -1.0 s"),
        (["--threads", "0"], "--threads: it is 0"),
        (["--memory", "none"], "--memory: it is 'none'; allowed: auto, least, default"),
        (["--max-batch-size", "0"], "--max-batch-size: it is 0; allowed is 1 and more"),
        (["--only", "magic"], "--only: there is no recipe 'magic'"),
        (["--calibration", "none.npz"], "--calibration: "),
        (["--shape", "z=1"], "--shape: there is no input 'z'"),
        (["--shape", "x=a,b"], "'x=a,b' is no shape; write as images=1,3,224,224"),
        (["--shape", "1,3"], "'1,3' is no shape"),
        (["--cache", "http://host/x"], "--cache: http:// cannot be written to"),
        (["--report", "none/r.json"], "--report: there is no folder none"),
        (["-o", "none/out.onnx"], "--output: there is no folder none"),
        (["-o", "."], "--output: . is a folder"),
    ],
)
def test_a_wrong_option_is_told_by_its_name(words: list[str], told: str) -> None:
    ended = run(*words)
    assert ended.exit_code in (EX_CONFIG, 2)
    assert told in " ".join(ended.stderr.split())
    assert not Path("out.onnx").exists()


def test_calibration_data_opens_lower_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    rough = Recipe("rough", "int8", lambda material, judge: Made(models.wasteful(1)), needs_calibration=True)
    monkeypatch.setattr(candidates, "all_recipes", lambda: [rough])
    np.savez("data.npz", x=np.random.default_rng(0).standard_normal((80, 256)).astype(np.float32))
    given = ["--calibration", "data.npz", "--accuracy-budget", "cosine>=0.9", "--shape", "x=64,256"]
    ended = run(*given, "--report", "r.json")
    assert ended.exit_code == 0, ended.output
    assert "Judged on 40 samples of held-out data against cosine>=0.9" in ended.stdout
    assert json.loads(Path("r.json").read_text())["kept"] == "rough"


def test_the_help_teaches_by_example() -> None:
    said = CliRunner().invoke(cli.main, ["optimize", "--help"]).output
    assert "openclaw optimize model.onnx -o fast.onnx --calibration samples.npz" in said
    assert "cosine-worst" in said
    listed = CliRunner().invoke(cli.main, ["--help"]).output
    assert "Makes a model faster without losing accuracy unseen." in listed


def test_other_commands_load_nothing_of_the_optimizer() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from openclaw import cli; "
        "assert CliRunner().invoke(cli.main, ['--help']).exit_code == 0; "
        "assert CliRunner().invoke(cli.main, ['serve', '--help']).exit_code == 0; "
        "print([name for name in sys.modules if name.split('.')[0] in ('onnx', 'onnxruntime', 'rich', 'numpy')])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert said.stdout.strip() == "[]"


@pytest.mark.parametrize("missing", ["onnx", "rich"])
def test_a_missing_extra_is_told_with_what_to_install(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from click.testing import CliRunner\n"
        "from openclaw import cli\n"
        "ended = CliRunner().invoke(cli.main, ['optimize', 'in.onnx', '-o', 'out.onnx'])\n"
        "print(ended.exit_code, ended.output)\n"
        "import openclaw\n"
        "try:\n    openclaw.optimize\nexcept ImportError as error:\n    print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert ended.stdout.count("pip install 'openclaw[optimize]'") == 2, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout
