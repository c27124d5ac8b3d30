"""The command line and the words a failing start leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click import BadParameter
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from openclaw.cli import main, serve
from openclaw.errors import STARTUP_ERRORS, ModelInvalid, StartupError
from openclaw.serving.termination import LIMIT_BYTES, failure_line, report_failure


def test_help_teaches_with_examples_and_imports_nothing_heavy() -> None:
    script = (
        "import sys; from openclaw.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'onnxruntime', 'numpy', 'aiohttp', 'pydantic', 'openclaw_operator'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "openclaw serve model.onnx" in done.stdout
    serve = CliRunner().invoke(main, ["serve", "--help"])
    assert "openclaw serve s3://models/digits.onnx --name digits --port 9000" in serve.output
    assert "MODEL_PATH" in serve.output


def plugin(folder: Path, code: str, value: str) -> dict[str, str]:
    """An installed distribution with one command; the environment that finds it."""
    (folder / "broken_plugin.py").write_text(code)
    info = folder / "broken_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[openclaw.commands]\nextra = {value}\n")
    return {"PYTHONPATH": str(folder)}


def run(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "openclaw", *arguments]
    return subprocess.run(command, env={"PATH": "", **environment}, capture_output=True, text=True, timeout=30)


def test_a_command_of_another_package_runs(tmp_path: Path) -> None:
    code = "import click\n@click.command()\ndef extra():\n    click.echo('extra ran')\n"
    environment = plugin(tmp_path, code, "broken_plugin:extra")
    assert run("extra", environment=environment).stdout == "extra ran\n"


@pytest.mark.parametrize(
    ("code", "value", "says"),
    [
        ("raise ValueError('no luck')", "broken_plugin:extra", "cannot be loaded: no luck"),
        ("", "broken_plugin:extra", "cannot be loaded"),
        ("extra = 3", "broken_plugin:extra", "is not a click command"),
    ],
)
def test_a_broken_command_says_so_in_one_line_and_harms_no_other(
    tmp_path: Path, code: str, value: str, *, says: str
) -> None:
    environment = plugin(tmp_path, code, value)
    listed = run("--help", environment=environment)
    assert listed.returncode == 0
    assert "extra" in listed.stdout
    done = run("extra", environment=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the command 'extra' (broken_plugin:extra)")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("written", "size"),
    [("629145600", 600 << 20), ("600MiB", 600 << 20), ("600Mi", 600 << 20), ("2GiB", 2 << 30), ("1GB", 10**9)],
)
def test_a_memory_budget_is_bytes_or_a_number_with_a_unit(written: str, size: int) -> None:
    option = next(each for each in serve.params if each.name == "memory_budget")
    assert option.type.convert(written, None, None) == size


@pytest.mark.parametrize("written", ["", "MiB", "1.5GiB", "-1", "600 MiB", "600MiBB", "600B", "٣", "9" * 5000])
def test_a_memory_budget_that_is_no_size_is_refused_with_an_example(written: str) -> None:
    option = next(each for each in serve.params if each.name == "memory_budget")
    with pytest.raises(BadParameter, match="is not a size; write bytes, or a whole number of KiB, MiB or GiB: 600MiB"):
        option.type.convert(written, None, None)


@given(st.sampled_from(sorted(STARTUP_ERRORS)), st.text(max_size=9000))
def test_the_last_words_are_one_line_that_fits_the_termination_log(reason: str, message: str) -> None:
    line = failure_line(STARTUP_ERRORS[reason](message))
    assert "\n" not in line
    said = json.loads(line)
    assert said["reason"] == reason
    assert len(line.encode("utf-8", "surrogatepass")) <= LIMIT_BYTES
    assert said["message"] == message or message.startswith(said["message"].removesuffix("…"))


def test_the_failure_goes_to_the_log_that_is_named_and_to_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    report_failure(ModelInvalid("not a model"), {"OPENCLAW_TERMINATION_LOG": str(log)})
    assert log.read_text() == capsys.readouterr().err
    report_failure(ModelInvalid("not a model"), {"OPENCLAW_TERMINATION_LOG": str(tmp_path)})
    assert "cannot be written: Is a directory" in capsys.readouterr().err


def test_every_startup_error_has_an_exit_code_of_sysexits_and_is_known_by_its_reason() -> None:
    def below(kind: type[StartupError]) -> set[type[StartupError]]:
        return {kind, *(leaf for child in kind.__subclasses__() for leaf in below(child))}

    leaves = below(StartupError) - {StartupError}
    assert {error.__name__: error for error in leaves} == STARTUP_ERRORS
    assert {error.exit_code for error in leaves} == {75, 78}


def test_the_port_that_kubernetes_makes_of_a_service_named_openclaw_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENCLAW_PORT", "tcp://10.96.0.12:80")
    assert serve.make_context("serve", ["model.onnx"]).params["port"] is None
    monkeypatch.setenv("OPENCLAW_PORT", "9000")
    assert serve.make_context("serve", ["model.onnx"]).params["port"] == 9000
