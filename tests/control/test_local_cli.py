"""What `openclaw local` says: tables, commands to paste, and errors that tell what to do next."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator.local import report
from openclaw_operator.local.cli import local
from openclaw_operator.local.failures import HomeError
from openclaw_operator.local.home import Home
from openclaw_operator.local.moments import age, rfc3339
from openclaw_operator.local.output import Output

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
URL = "http://127.0.0.1:8080/default/digits"
Run = Callable[..., Result]

SERVICE = """\
apiVersion: openclaw.io/v1alpha1
kind: InferenceService
metadata: {name: digits}
spec:
  model: {uri: file://./digits.onnx}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a folder with service.yaml, where no daemon runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "service.yaml").write_text(SERVICE)
    runner = CliRunner(env={"OPENCLAW_LOCAL_DIR": str(tmp_path / "home")})
    return lambda *arguments: runner.invoke(local, arguments)


def service(reason: str, message: str, **status: Any) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True" if reason == "InferenceAnswered" else "False"}
    return {
        "metadata": {
            "name": "digits",
            "namespace": "default",
            "generation": 1,
            "creationTimestamp": "2026-01-01T11:55:00Z",
        },
        "spec": {"model": {"uri": "s3://models/digits.onnx"}},
        "status": {
            "observedGeneration": 1,
            "url": URL,
            "conditions": [{**ready, "reason": reason, "message": message}],
            **status,
        },
    }


def test_the_table_shows_each_service_and_below_it_what_is_wrong() -> None:
    good = service("InferenceAnswered", "fine", replicas=2, readyReplicas=2)
    bad = service("ModelNotFound", "there is no file /x", replicas=1, readyReplicas=0)
    bad["metadata"]["namespace"] = "team"
    assert report.table([good, bad], now=NOW).splitlines() == [
        "NAME          READY   REASON              URL                                    REPLICAS   AGE",
        "digits        True    InferenceAnswered   http://127.0.0.1:8080/default/digits   2/2        5m",
        "team/digits   False   ModelNotFound       http://127.0.0.1:8080/default/digits   0/1        5m",
        "",
        "team/digits: there is no file /x",
    ]


def test_a_status_of_an_earlier_generation_says_nothing_about_this_one() -> None:
    changed = service("InferenceAnswered", "fine")
    changed["metadata"]["generation"] = 2
    assert report.standing(changed) == report.Standing(False, False, "Pending", "the change has not been looked at yet")


@pytest.mark.parametrize(
    ("reason", "failed"),
    [("ModelNotFound", True), ("CrashLooping", True), ("RollingOut", False), ("PodsStarting", False)],
)
def test_progress_is_no_failure(reason: str, failed: bool) -> None:
    assert report.standing(service(reason, "")).failed is failed


def test_the_command_to_paste_sends_zeros_of_the_models_shape() -> None:
    metadata = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]}
    command = report.curl(service("InferenceAnswered", ""), metadata)
    assert command == (
        f"curl {URL}/v2/models/digits/infer "
        """-d '{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[0,0]}]}'"""
    )


@pytest.mark.parametrize(
    "inputs",
    [
        [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 224, 224]}],
        [{"name": "text", "datatype": "BYTES", "shape": [1]}],
        [],
    ],
)
def test_the_command_asks_for_metadata_where_an_inference_is_none_to_paste(inputs: list[Any]) -> None:
    assert report.curl(service("InferenceAnswered", ""), {"inputs": inputs}) == f"curl {URL}/v2/models/digits"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172800, "2d")])
def test_ages_are_short(seconds: int, text: str) -> None:
    assert age(rfc3339(datetime.fromtimestamp(NOW.timestamp() - seconds, UTC)), NOW) == text


def test_commands_say_that_local_mode_is_not_running(run: Run) -> None:
    for arguments in (["get"], ["logs", "digits"]):
        ended = run(*arguments)
        assert ended.exit_code == 1
        assert "local mode is not running: start it with openclaw local up -f FILE" in ended.output
    ended = run("down")
    assert (ended.exit_code, ended.output) == (0, "local mode was not running\n")


def test_a_wrong_file_is_refused_before_anything_starts(run: Run, tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text(SERVICE + "  replicas: 3\n")
    ended = run("up", "-f", "service.yaml")
    assert ended.exit_code == 1
    assert f"Error: {tmp_path}/service.yaml:6: spec.replicas: 3: unknown field" in ended.output
    assert not (tmp_path / "home").exists()


def test_a_taken_port_is_told_with_its_holder(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run("up", "-f", "service.yaml", "--port", str(port))
    assert ended.exit_code == 1
    assert f"port {port} is taken by " in ended.output
    assert f"(process {os.getpid()}): choose another one with --port" in ended.output


def test_a_folder_too_deep_for_a_socket_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="the path is too long for a socket"):
        Home.of_user({"OPENCLAW_LOCAL_DIR": str(tmp_path / ("x" * 100))})


def test_the_folder_is_for_its_user_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", cache=tmp_path)
    home.prepare()
    assert home.folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_with_other_files_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "home" / "logs").mkdir(parents=True, mode=0o700)
    (tmp_path / "home").chmod(0o700)
    refused = run("up", "-f", "service.yaml")
    assert "home holds other files: set OPENCLAW_LOCAL_DIR to an empty folder" in refused.output
    assert run("down").output == "local mode was not running\n"
    assert (tmp_path / "home" / "logs").exists()
    (tmp_path / "home").chmod(0o755)
    assert "home is open to other users: chmod 700 it" in run("up", "-f", "service.yaml").output


async def test_a_lock_that_nobody_holds_is_stale(tmp_path: Path) -> None:
    home, other = Home(tmp_path, cache=tmp_path), Home(tmp_path, cache=tmp_path)
    assert home.daemon() is None
    assert await home.acquire()
    home.announce(4711)
    told = other.daemon()
    assert told is not None
    assert (told.pid, told.port) == (os.getpid(), 4711)
    assert not await other.acquire()
    (tmp_path / "daemon.lock").replace(tmp_path / "kept")
    (tmp_path / "daemon.lock").write_text(json.dumps({"pid": 1, "port": 1}))
    assert other.daemon() is None


async def test_processes_that_a_dead_daemon_left_are_ended(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", cache=tmp_path)
    home.prepare()
    environment = {**os.environ, "OPENCLAW_LOCAL_MEMBER": str(home.folder)}
    stranger = {**os.environ, "OPENCLAW_LOCAL_MEMBER": str(tmp_path)}
    left = await asyncio.create_subprocess_exec("sleep", "60", env=environment)
    other = await asyncio.create_subprocess_exec("sleep", "60", env=stranger)
    try:
        assert await home.clean() == 1
        assert await asyncio.wait_for(left.wait(), 5) == -signal.SIGKILL
        assert other.returncode is None
        assert not home.folder.exists()
    finally:
        other.kill()
        await other.wait()


@given(st.lists(st.text(alphabet="ab\n", max_size=6), max_size=6))
def test_output_is_told_once_and_by_whole_lines(tmp_path_factory: pytest.TempPathFactory, chunks: list[str]) -> None:
    folder = tmp_path_factory.mktemp("logs")
    output, told, written = Output(folder), [], ""
    for chunk in chunks:
        with (folder / "pod.log").open("a") as log:
            log.write(chunk)
        written += chunk
        told += list(output.news())
    assert told == written[: written.rfind("\n") + 1].splitlines()


def test_output_of_several_pods_is_told_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.log").write_text(f"I am {name}\n")
    assert sorted(Output(tmp_path).news()) == ["one | I am one", "two | I am two"]
