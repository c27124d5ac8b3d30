"""`make demo`: what it proves, and that it leaves nothing behind."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys

import pytest

from support.demo import Demo


def test_the_demo_classifies_the_held_out_images_and_exits_with_0(demo: Demo) -> None:
    assert demo.code == 0, demo.said
    counted = re.search(r"accuracy ([\d.]+): (\d+) of (\d+) images", demo.said)
    assert counted, demo.said
    accuracy, right, total = float(counted[1]), int(counted[2]), int(counted[3])
    assert accuracy >= 0.95
    assert total >= 300
    assert abs(accuracy - right / total) < 1e-4


def test_the_first_inference_is_answered_within_20_seconds(demo: Demo) -> None:
    first = re.search(r"first inference answered ([\d.]+) s", demo.said)
    assert first, demo.said
    assert float(first[1]) < 20


def test_the_demo_shows_images_with_their_answers_and_latency(demo: Demo) -> None:
    assert "████" in demo.said
    assert re.search(r"\b\d \(\d+%\)", demo.said)
    assert re.search(r"latency +p50 [\d.]+ ms, p99 [\d.]+ ms", demo.said)


def test_the_demo_leaves_no_process_no_port_and_no_state(demo: Demo) -> None:
    url = re.search(r"is Ready after .* http://127\.0\.0\.1:(\d+)/", demo.said)
    assert url, demo.said
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(url[1]))) != 0
    assert not demo.members()
    assert sorted(path.name for path in demo.build.iterdir() if path.is_file()) == ["digits.onnx", "held-out.json"]
    assert not (demo.build / "local").exists()


@pytest.mark.parametrize("moment", ["1. A model", "2. A service", "digits is Ready", "3. "])
def test_a_demo_that_is_interrupted_cleans_up_too(demo: Demo, moment: str) -> None:
    with subprocess.Popen(
        [sys.executable, demo.folder / "demo.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=demo.folder,
        start_new_session=True,
    ) as running:
        assert running.stdout is not None
        said: list[str] = []
        while not said or not said[-1].strip().startswith(moment):
            said.append(running.stdout.readline())
            assert said[-1], f"it never came to {moment!r}: {said}"
        # On a terminal Ctrl-C reaches the whole process group.
        os.killpg(running.pid, signal.SIGINT)
        said.append(running.communicate(timeout=40)[0])
    assert running.returncode == 130, "".join(said)
    assert not demo.members()
    assert not (demo.build / "local").exists()


def test_the_curl_line_of_the_demo_gives_the_digit(demo: Demo, digits_server: int) -> None:
    line = next(line for line in demo.said.splitlines() if line.strip().startswith("curl "))
    command = [
        re.sub(r"^http://127\.0\.0\.1:\d+/default/digits", f"http://127.0.0.1:{digits_server}", word)
        for word in shlex.split(line)
    ]
    answered = subprocess.run([*command, "--silent"], capture_output=True, text=True, timeout=20, check=True)
    shown = re.search(r"^ *(\d) \(\d+%\)", demo.said, re.MULTILINE)
    assert shown
    assert f'"name":"digit","datatype":"INT64","shape":[1],"data":[{shown[1]}]' in answered.stdout
