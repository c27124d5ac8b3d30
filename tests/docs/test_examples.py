"""Every example of the documentation is run, or held to what it talks about."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import click
import pytest
import yaml

from openclaw import cli, config
from openclaw_operator.api.v1alpha1 import KIND, InferenceService
from openclaw_operator.local import documents
from support.demo import Demo
from support.markdown import REPOSITORY, Block, blocks

SHELLS = ("shell", "sh", "bash", "console")
SERVICE_FILES = sorted((REPOSITORY / "examples").rglob("*.yaml"))


def services() -> list[Block]:
    found = [block for block in blocks("yaml") if f"kind: {KIND}" in block.text]
    assert len(found) > 4, "the YAML examples were not found"
    return found


@pytest.mark.parametrize("block", services(), ids=str)
def test_an_example_in_yaml_is_a_valid_service(block: Block) -> None:
    assert documents.parse(block.text, file=block.page)


@pytest.mark.parametrize("file", SERVICE_FILES, ids=lambda file: file.name)
def test_an_example_file_is_a_valid_service(file: Path) -> None:
    assert documents.read([file])


def test_the_example_for_a_cluster_is_valid_as_it_stands() -> None:
    text = (REPOSITORY / "examples" / "digits" / "cluster.yaml").read_text(encoding="utf-8")
    manifest = yaml.safe_load(text)
    manifest["metadata"]["namespace"] = "default"
    assert InferenceService.parse(manifest).spec.model.credentials is not None


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_an_example_of_the_servers_configuration_is_valid(block: Block) -> None:
    document = json.loads(block.text)
    assert config.parse(document).model.name == document["model"]["name"]


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_an_example_in_python_runs(block: Block, demo: Demo, digits_server: int, *, grpc_port: int) -> None:
    text = block.text.replace("localhost:8080", f"127.0.0.1:{digits_server}")
    text = text.replace("localhost:8081", f"127.0.0.1:{grpc_port}")
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        capture_output=True, text=True, timeout=30, check=False, cwd=demo.build,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("block", [block for block in blocks(*SHELLS) if "ask" in block.flags], ids=str)
def test_commands_that_ask_a_server_are_answered(block: Block, digits_server: int) -> None:
    script = block.text.replace("localhost:8080", f"127.0.0.1:{digits_server}")
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["name"] == "digits"


def test_the_metadata_that_the_first_service_shows_is_what_a_server_answers(digits_server: int) -> None:
    page = REPOSITORY / "docs" / "first-service.md"
    shown = [line for block in blocks("console") if block.page == page for line in block.text.splitlines()]
    with urlopen(f"http://127.0.0.1:{digits_server}/v2/models/digits") as answer:
        assert answer.read().decode() in shown


@pytest.mark.parametrize("page", sorted({block.page for block in blocks(*SHELLS) if "run" in block.flags}), ids=str)
def test_the_commands_of_a_page_run_one_after_the_other(page: Path, demo: Demo, tmp_path: Path) -> None:
    port = free_port()
    script = "\n".join(block.text for block in blocks(*SHELLS) if block.page == page and "run" in block.flags)
    # The docs use the gateway's default port, which may be taken here.
    script = re.sub(r"\b8081\b", str(free_port()), script)
    script = re.sub(r"\b8080\b", str(port), script.replace("openclaw local up", f"openclaw local up --port {port}"))
    shutil.copytree(demo.folder, tmp_path / "examples" / "digits", ignore=shutil.ignore_patterns("cache"))
    shutil.copy(demo.build / "digits.onnx", tmp_path)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OPENCLAW_LOCAL_DIR": str(tmp_path / "local"),
        "OPENCLAW_CACHE_DIR": str(tmp_path / "cache"),
    }
    running = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path, env=environment,
        start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = running.communicate(timeout=60)
        assert running.returncode == 0, said
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)  # what a page that failed half-way has left
        subprocess.run(
            [sys.executable, "-m", "openclaw", "local", "down"],
            env=environment, timeout=40, check=True, capture_output=True,
        )  # fmt: skip


@pytest.mark.parametrize("block", blocks(*SHELLS), ids=str)
def test_commands_of_ours_exist_with_their_options(block: Block) -> None:
    for command in commands(block.text):
        words = shlex.split(command, comments=True)
        if Path(words[0]).name == "openclaw":
            check(cli.main, words[1:])
        elif words[0] == "make":
            missing = {word for word in words[1:] if "=" not in word} - targets()
            assert not missing, f"{block}: make has no target {missing}"
        elif Path(words[0]).name.startswith("python") and words[1].endswith(".py"):
            assert (REPOSITORY / words[1]).exists(), f"{block}: there is no {words[1]}"


def test_a_command_that_does_not_exist_is_found() -> None:
    with pytest.raises(AssertionError, match="no option --no-such"):
        check(cli.main, ["local", "up", "-f", "x.yaml", "--no-such"])
    with pytest.raises(AssertionError, match="no command 'nothing'"):
        check(cli.main, ["local", "nothing"])


def commands(text: str) -> Iterator[str]:
    """The commands of a block: behind `$` where it shows output too; a backslash joins lines; variables set before."""
    lines = text.replace("\\\n", " ").splitlines()
    shown = [line.strip().removeprefix("$ ") for line in lines if "$ " not in text or line.strip().startswith("$ ")]
    for line in shown:
        command = re.sub(r"^(\w+=\S* )+", "", line)
        if re.match(r"(\S*/)?(openclaw|python3?|make)\s", command):
            yield re.split(r" (?:\||&&|&|>) ?", command)[0]


def check(command: click.Command, words: list[str]) -> None:
    """Asserts that the command takes these words."""
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("-"):
            name = word.partition("=")[0]
            assert name in options | {"--help", "--version"}, f"{command.name} has no option {name}"
        elif isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            assert found, f"{command.name} has no command {word!r}"
            return check(found, words[words.index(word) + 1 :])
    return None


def targets() -> set[str]:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
