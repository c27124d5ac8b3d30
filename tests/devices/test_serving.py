"""A server whose models run on a device."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from openclaw.config import parse
from openclaw.errors import ConfigInvalid
from openclaw.serving.settings import layered


def serve(model: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "openclaw", "serve", str(model), "--host", "127.0.0.1", "--port", "0",
         "--drain-delay", "0", *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OPENCLAW_TERMINATION_LOG": os.devnull},
    )  # fmt: skip


def test_a_server_says_where_its_model_runs_and_answers(doubling: Path) -> None:
    server = serve(doubling, "--device", "auto")
    try:
        assert server.stdout is not None
        said = []
        for line in server.stdout:
            said.append(line)
            if "is ready on" in line:
                break
        assert any("doubling runs on CPU" in line and "with CPUExecutionProvider" in line for line in said), said
        url = next(word for word in said[-1].split() if word.startswith("http://"))
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
        with urlopen(Request(f"{url}/v2/models/doubling/infer", json.dumps(body).encode()), timeout=20) as answer:
            assert json.load(answer)["outputs"][0]["data"] == [2, 4, 6, 8]
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=20)


def test_a_device_that_is_not_there_ends_the_server_with_those_there_are(doubling: Path) -> None:
    server = serve(doubling, "--device", "99")
    said, _ = server.communicate(timeout=60)
    assert server.returncode == 78
    told = json.loads(said.splitlines()[-1])
    assert told["reason"] == "DeviceUnavailable"
    assert told["message"].startswith("there is no device 99; there is ")


def test_the_setting_is_the_same_in_the_file_and_on_the_command_line() -> None:
    assert layered(None, ["model.onnx"], {"device": "gpu"}).server.device == "gpu"
    document = {"model": {"name": "m", "uri": "file:///m.onnx"}, "server": {"device": "1"}}
    assert parse(document).server.device == "1"
    with pytest.raises(ConfigInvalid, match=r'server.device is "tpu"'):
        parse({**document, "server": {"device": "tpu"}})
