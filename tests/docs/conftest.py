"""The demo, run once: its model is what the examples of the docs are run with."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from support.demo import Demo, run_demo


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo's end, from a folder where nothing was trained yet."""
    return run_demo(tmp_path_factory.mktemp("demo") / "digits")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def grpc_port() -> int:
    """The port on which that server answers gRPC."""
    return free_port()


@pytest.fixture(scope="session")
def digits_server(demo: Demo, grpc_port: int) -> Iterator[int]:
    """The port of an `openclaw serve digits.onnx`, ready."""
    port = free_port()
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "openclaw",
            "serve",
            "digits.onnx",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--grpc-port",
            str(grpc_port),
            "--drain-delay",
            "0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=demo.build,
        env={**os.environ, "OPENCLAW_CACHE_DIR": str(demo.folder / "cache")},
    )
    assert server.stdout is not None
    said = []
    for line in server.stdout:
        said.append(line)
        if "is ready on" in line:
            break
    assert server.poll() is None, "".join(said)
    yield port
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=20)
