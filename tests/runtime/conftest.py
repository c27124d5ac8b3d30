"""Real models, real servers and a real S3 for the runtime's tests."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from benchmarks.memory.groups import group, parent_group
from onnx import TensorProto, helper, numpy_helper

OPSET = [helper.make_opsetid("", 17)]


def save_graph(path: Path, graph: onnx.GraphProto) -> Path:
    onnx.save(helper.make_model(graph, opset_imports=OPSET, ir_version=8), path)
    return path


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return ModelFolder(tmp_path_factory.mktemp("models"))


@dataclass(frozen=True)
class ModelFolder:
    """Builds small ONNX models, each once."""

    folder: Path

    def digits(self, factor: float = 1.0) -> Path:
        """FP32[-1,64] ``image`` times a fixed matrix -> scores FP32[-1,10]."""
        path = self.folder / f"digits{'' if factor == 1.0 else factor}.onnx"
        if not path.exists():
            weights = np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32) * factor
            node = helper.make_node("MatMul", ["image", "w"], ["scores"])
            self._save(
                path,
                [node],
                inputs=[("image", TensorProto.FLOAT, ["N", 64])],
                outputs=[("scores", TensorProto.FLOAT, ["N", 10])],
                weights=weights,
            )
        return path

    def identity(self, datatype: int) -> Path:
        """Gives x as y: one free and one fixed dimension, of any ONNX datatype."""
        path = self.folder / f"identity{datatype}.onnx"
        if not path.exists():
            node = helper.make_node("Identity", ["x"], ["y"])
            self._save(path, [node], inputs=[("x", datatype, ["N", 2])], outputs=[("y", datatype, ["N", 2])])
        return path

    def pair(self) -> Path:
        """INT64[-1] a and b -> INT64[-1] sum and difference."""
        path = self.folder / "pair.onnx"
        if not path.exists():
            nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
            ints = TensorProto.INT64
            outputs = [(name, ints, ["N"]) for name in ("sum", "difference")]
            self._save(path, nodes, inputs=[(name, ints, ["N"]) for name in "ab"], outputs=outputs)
        return path

    def slow(self, size: int = 512, layers: int = 60) -> Path:
        """FP32[-1,size] x through many products: an inference of some tens of milliseconds for a big batch."""
        path = self.folder / f"slow{size}x{layers}.onnx"
        if not path.exists():
            nodes = [helper.make_node("MatMul", [f"x{i}" if i else "x", "w"], [f"x{i + 1}"]) for i in range(layers)]
            weights = (np.eye(size) * 0.5).astype(np.float32)
            self._save(
                path,
                nodes,
                inputs=[("x", TensorProto.FLOAT, ["N", size])],
                outputs=[(f"x{layers}", TensorProto.FLOAT, ["N", size])],
                weights=weights,
            )
        return path

    def needs_two_rows(self) -> Path:
        """Takes x FP32[-1] but fails unless it has 2 elements: what a warm-up of zeros cannot know."""
        path = self.folder / "two.onnx"
        if not path.exists():
            shape = numpy_helper.from_array(np.array([2], dtype=np.int64), "w")
            node = helper.make_node("Reshape", ["x", "w"], ["y"])
            graph = helper.make_graph(
                [node], "two",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
                [shape],
            )  # fmt: skip
            save_graph(path, graph)
        return path

    def _save(
        self,
        path: Path,
        nodes: Sequence[onnx.NodeProto],
        *,
        inputs: Sequence[tuple[str, int, list[Any]]],
        outputs: Sequence[tuple[str, int, list[Any]]],
        weights: np.ndarray[Any, Any] | None = None,
    ) -> None:
        graph = helper.make_graph(
            nodes,
            path.stem.replace(".", "_"),
            [helper.make_tensor_value_info(*item) for item in inputs],
            [helper.make_tensor_value_info(*item) for item in outputs],
            [] if weights is None else [numpy_helper.from_array(weights, "w")],
        )
        save_graph(path, graph)


class Server:
    """An ``openclaw serve`` process of its own, with its log at hand."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "openclaw", "serve", *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._pump = threading.Thread(target=self._read, daemon=True)
        self._pump.start()

    @property
    def log(self) -> str:
        with self._changed:
            return "".join(self._lines)

    @property
    def port(self) -> int:
        return int(self.wait_for(r"listening on \S+:(\d+)").group(1))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, pattern: str, seconds: float = 30) -> re.Match[str]:
        deadline = time.monotonic() + seconds
        with self._changed:
            while not (match := re.search(pattern, "".join(self._lines))):
                left = deadline - time.monotonic()
                if left <= 0 or (not self._pump.is_alive() and self.process.poll() is not None):
                    pytest.fail(f"{pattern!r} was not logged:\n{''.join(self._lines)}")
                self._changed.wait(min(left, 0.5))
        return match

    def wait_ready(self) -> Server:
        self.wait_for(r"is ready on ")
        return self

    def stop(self, seconds: float = 20) -> int:
        """SIGTERM, then waits for the end; a server that does not end is killed and shown."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds: float = 20) -> int:
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"the server did not end within {seconds} s:\n{self.log}")
        self._pump.join(5)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._pump.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


StartServer = Callable[..., Server]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers on free ports of loopback, with a cache of their own; ends them after the test."""
    servers: list[Server] = []

    def start(*arguments: object, **environment: str) -> Server:
        servers.append(_server(tmp_path / "cache", arguments, environment))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def cell() -> Iterator[Path]:
    """A control group of memory."""
    with group(parent_group(), "test") as folder:
        if folder is not None:
            yield folder
            return
    message = "control groups of memory cannot be made here"
    if "CI" in os.environ and os.getuid() == 0:
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def digits_server(models: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with the digits model and a request limit of 1 MiB, for tests that only ask."""
    arguments = (models.digits(), "--max-request-bytes", 2**20, "--drain-delay", 0)
    server = _server(tmp_path_factory.mktemp("cache"), arguments, {})
    yield server.wait_ready()
    code = server.stop()
    server.close()
    assert code == 0
    assert "Traceback" not in server.log


def _server(cache: Path, arguments: Sequence[object], environment: dict[str, str]) -> Server:
    fixed = {
        "OPENCLAW_CACHE_DIR": str(cache),
        "OPENCLAW_TERMINATION_LOG": str(cache.parent / "termination.log"),
        "OPENCLAW_HOST": "127.0.0.1",
        "OPENCLAW_PORT": "0",
    }
    return Server([str(argument) for argument in arguments], {**fixed, **environment})


@dataclass(frozen=True)
class S3:
    """A running S3 server: its endpoint, one account, and the folder behind it (a bucket is a folder)."""

    endpoint: str
    folder: Path
    access: str = "tester"
    secret: str = "tester-secret"

    def environment(self, secret: str | None = None) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access,
            "AWS_SECRET_ACCESS_KEY": secret or self.secret,
            "AWS_REGION": "us-east-1",
        }

    def put(self, key: str, content: bytes) -> str:
        path = self.folder / "models" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return f"s3://models/{key}"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A real S3 server (versitygw) with the bucket ``models``."""
    binary = _tool("versitygw")
    folder = tmp_path_factory.mktemp("s3")
    (folder / "models").mkdir()
    port = free_port()
    server = S3(f"http://127.0.0.1:{port}", folder)
    process = subprocess.Popen(
        [
            binary,
            "--access",
            server.access,
            "--secret",
            server.secret,
            "--port",
            f"127.0.0.1:{port}",
            "posix",
            str(folder),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port)
        yield server
    finally:
        process.terminate()
        process.wait(10)


def _tool(name: str) -> str:
    folders = [os.environ.get("OPENCLAW_TOOLS_BIN", ""), str(Path(__file__).parents[2] / ".cache" / "bin")]
    found = shutil.which(name, path=os.pathsep.join([*filter(None, folders), os.environ.get("PATH", "")]))
    if found is None:
        message = f"{name} is neither in OPENCLAW_TOOLS_BIN, .cache/bin nor PATH; `make test` builds it"
        if "CI" in os.environ:
            pytest.fail(message)
        pytest.skip(message)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    tick = threading.Event()
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            tick.wait(0.05)
        else:
            return
    pytest.fail(f"nothing listens on port {port} after {seconds} s")
