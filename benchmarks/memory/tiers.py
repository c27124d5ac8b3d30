"""`python -m benchmarks.memory.run tiers`: models that have less memory than they are large; see --help."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from random import Random
from typing import Any

import click
import numpy as np
import onnx
from benchmarks.graph.run import LeftOut, say
from benchmarks.memory.groups import group, inside, kills, most, parent_group
from benchmarks.memory.kept import TIERS, earlier, folder_of
from benchmarks.memory.tier_records import Crowd, Oversize, TierResults, Workers, table, verdicts
from benchmarks.records import Origin, Record
from benchmarks.serving.report import machine
from onnx import TensorProto, helper, numpy_helper

from openclaw.memory.budget import RESERVE

_MIB = 1 << 20
_PARTS = ("oversize", "crowd", "workers")
_START = 300.0
_CLIENTS = 4


@click.command()
@click.option("--only", multiple=True, type=click.Choice(_PARTS), help="This part alone; may be given several times.")
@click.option("--quick", is_flag=True, help="Small models and few requests: whether all works.")
@click.option("--group", "parent", type=click.Path(path_type=Path, exists=True), help="Where to make control groups.")
@click.option("--results", type=click.Path(path_type=Path), help="Folder for JSON and table.")
def tiers(only: tuple[str, ...], quick: bool, *, parent: Path | None, results: Path | None) -> None:
    """A model larger than its memory, many models in a budget for few, and workers that share one."""
    facts, parent = machine(), parent or parent_group()
    left_out: list[str] = []
    parts: dict[str, Any] = {}
    measures: dict[str, Callable[[Path], Record]] = {
        "oversize": lambda folder: oversize(folder, parent, quick=quick),
        "crowd": lambda folder: crowd(folder, parent, quick=quick),
        "workers": lambda folder: workers(folder, quick=quick),
    }
    for name in only or _PARTS:
        with LeftOut(name, left_out), tempfile.TemporaryDirectory(prefix="openclaw-bench-") as folder:
            parts[name] = measures[name](Path(folder))
    origin = Origin(commit=str(facts["commit"]), date=str(facts["date"]))
    found = TierResults(
        machine=facts, small=quick, origins=dict.fromkeys(parts, origin), left_out=tuple(left_out), **parts
    )
    to = folder_of(results, quick=quick)
    before = earlier(TierResults, to, name=TIERS, part=bool(only))
    found = found.joined(before) if before else found
    found = found.model_copy(update={"verdicts": tuple(verdicts(found))})
    (to / f"{TIERS}.json").write_text(found.model_dump_json(indent=1) + "\n")
    (to / f"{TIERS}.md").write_text(table(found))
    click.echo(table(found))


def oversize(folder: Path, parent: Path | None, *, quick: bool) -> Oversize:
    """A model of 1.5x of a control group's limit, asked one request after the other."""
    if parent is None:
        raise OSError("no folder in which control groups can be made; give one with --group")
    limit = (256 if quick else 512) * _MIB
    size = 2048 if quick else 4096
    layers = int(1.5 * limit / (4 * size * size)) + 1
    say(f"oversize: a model of {4 * size * size * layers / _MIB:.0f} MiB in {limit / _MIB:.0f} MiB")
    model = Model.built(folder / "large.onnx", size=size, layers=layers, seed=0)
    with served([model.path], folder / "roomy") as server:
        roomy = min(server.ask(model)[0] for _ in range(3))
    _drop(model.path)
    with group(parent, "tiers", limit=limit) as cell, served([model.path], folder / "cache", cell=cell) as server:
        asked = [server.ask(model) for _ in range(5 if quick else 20)]
        return Oversize(
            model=model.path.stat().st_size,
            limit=limit,
            peak=most(cell),
            tier=server.tier(model),
            ready=server.ready,
            answered=len(asked),
            wrong=sum(not right for _, right in asked),
            seconds=sum(seconds for seconds, _ in asked),
            roomy=roomy,
        )


def crowd(folder: Path, parent: Path | None, *, quick: bool) -> Crowd:
    """20 models in a budget for 5, under requests of which half go to 3 of them.

    The server is in a control group with no more than the budget and what the product says that it needs beside it.
    """
    size, layers, many = (512, 10, 8) if quick else (1280, 16, 20)
    budget = (60 if quick else 600) * _MIB
    requests, limit = 200 if quick else 1_000, budget + RESERVE
    say(f"crowd: building {many} models")
    models = [Model.built(folder / f"m{i}.onnx", size=size, layers=layers, seed=i) for i in range(many)]
    for each in models:
        _drop(each.path)
    draw = Random(0)
    asked = [draw.choice(models[:3] if draw.random() < 0.5 else models) for _ in range(requests)]
    options = ("--memory-budget", str(budget))
    with group(parent, "crowd", limit=limit) as cell:
        with served([each.path for each in models], folder / "cache", *options, cell=cell) as server:
            say(f"crowd: asking {requests} times, {'with' if cell else 'without'} a limit of {limit / _MIB:.0f} MiB")
            began, resident, ended = time.perf_counter(), [0], threading.Event()
            watch = threading.Thread(target=_watch, args=(server.pid, resident, ended))
            watch.start()
            with ThreadPoolExecutor(_CLIENTS) as pool:
                found = list(pool.map(server.tried, asked))
            seconds = time.perf_counter() - began
            ended.set()
            watch.join()
            log = server.log()
        peak, killed = most(cell), kills(cell)
    waits: dict[str, list[float]] = {"mapped": [], "packed": []}
    for tier, wait in re.findall(r"is back, (\w+), after ([\d.]+) s", log):
        waits[tier].append(float(wait))
    answers = [each for each in found if each is not None]
    return Crowd(
        models=many,
        model=models[0].path.stat().st_size,
        budget=budget,
        answered=len(answers),
        failed=len(found) - len(answers),
        wrong=sum(not right for _, right in answers),
        seconds=seconds,
        evictions=len(re.findall(r"evicted \S+,", log)),
        waits={tier: tuple(each) for tier, each in waits.items()},
        latencies=tuple(taken for taken, _ in answers),
        resident=resident[0],
        limit=limit if parent else None,
        peak=peak,
        kills=killed,
    )


def workers(folder: Path, *, quick: bool) -> Workers:
    """One model served by 1 worker and by 4, each of which was asked."""
    size, layers = (1024, 10) if quick else (2560, 16)
    model = Model.built(folder / "model.onnx", size=size, layers=layers, seed=0)
    pss = {}
    for number in (1, 4):
        say(f"workers: {number}")
        with served([model.path], folder / f"cache{number}", "--workers", str(number), "--threads", "1") as server:
            # The kernel spreads connections over the workers: each has answered by then, all but surely.
            asked = [server.ask(model) for _ in range(10 * number)]
            if not all(right for _, right in asked):
                raise ValueError("a wrong answer")
            pss[number] = sum(_pss(pid) for pid in _family(server.pid))
    return Workers(model=model.path.stat().st_size, pss=pss)


class Model:
    """A chain of products with random matrices, and an input of which the answer is known."""

    def __init__(self, path: Path, given: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> None:
        self.path, self.given, self.wanted = path, given, wanted

    @classmethod
    def built(cls, path: Path, *, size: int, layers: int, seed: int) -> Model:
        """Writes the model; ``layers`` matrices of ``size`` squared numbers."""
        random = np.random.default_rng(seed)
        given = answer = random.standard_normal((1, size), dtype=np.float32)
        weights = []
        for number in range(layers):
            # Uniform numbers are drawn three times as fast as normal ones; the answer keeps its scale.
            matrix = (random.random((size, size), dtype=np.float32) - np.float32(0.5)) * np.float32(np.sqrt(12 / size))
            weights.append(numpy_helper.from_array(matrix, f"w{number}"))
            answer = answer @ matrix
        nodes = [
            helper.make_node("MatMul", [f"x{i}" if i else "x", f"w{i}"], [f"x{i + 1}" if i + 1 < layers else "y"])
            for i in range(layers)
        ]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name in "xy"]
        graph = helper.make_graph(nodes, path.stem, ends[:1], ends[1:], weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return cls(path, given, answer)

    def request(self) -> bytes:
        """In JSON."""
        data = self.given.ravel().tolist()
        tensor = {"name": "x", "datatype": "FP32", "shape": list(self.given.shape), "data": data}
        return json.dumps({"inputs": [tensor]}).encode()


class Server:
    """A running `openclaw serve`; for many threads at once."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, *, port: int, ready: float) -> None:
        self.pid, self.ready = process.pid, ready
        self._log, self._port = log, port

    def log(self) -> str:
        """What it said until now."""
        return self._log.read_text()

    def ask(self, model: Model) -> tuple[float, bool]:
        """Seconds of one request, and whether its answer was right. Raises OSError for a refusal."""
        body = model.request()
        began = time.perf_counter()
        status, text = self._exchange("POST", f"/v2/models/{model.path.stem}/infer", body)
        seconds = time.perf_counter() - began
        if status != 200:
            raise OSError(f"{status}: {text[:300]!r}")
        answer = np.array(json.loads(text)["outputs"][0]["data"], np.float32)
        return seconds, bool(np.allclose(answer, model.wanted.ravel(), rtol=1e-2, atol=1e-3))

    def tried(self, model: Model) -> tuple[float, bool] | None:
        """The same; None for a refusal."""
        try:
            return self.ask(model)
        except (OSError, HTTPException) as error:
            say(f"refused: {error}")
            return None

    def tier(self, model: Model) -> str:
        """What its metrics say."""
        text = self._exchange("GET", "/metrics")[1].decode()
        pattern = rf'openclaw_model_tier{{model="{model.path.stem}",tier="(\w+)"}} 1'
        return ", ".join(re.findall(pattern, text))

    def _exchange(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=120)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@contextmanager
def served(models: list[Path], cache: Path, *options: str, cell: Path | None = None) -> Iterator[Server]:
    """A server of its own, in a control group if one is given, until it is not needed any more."""
    log = cache.with_suffix(".log")
    command = [sys.executable, "-m", "openclaw", "serve", *map(str, models), "--drain-delay", "0", *options]
    environment = {
        **os.environ, "OPENCLAW_CACHE_DIR": str(cache), "OPENCLAW_HOST": "127.0.0.1", "OPENCLAW_PORT": "0",
        "OPENCLAW_TERMINATION_LOG": str(cache.with_suffix(".ended")),
    }  # fmt: skip
    command = inside(command, cell)
    began = time.perf_counter()
    with log.open("wb") as to:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=to, stderr=to)
    try:
        port = _port(process, log)
        yield Server(process, log, port=port, ready=time.perf_counter() - began)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port of a server once it is ready."""
    tick, end = threading.Event(), time.monotonic() + _START
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"is ready on \S+:(\d+)", log.read_text()):
            return int(found[1])
        tick.wait(0.05)
    raise OSError(f"the server did not come up: {log.read_text()[-500:]}")


def _drop(path: Path) -> None:
    """Has the kernel forget a file's pages: they would be counted for whoever read them first."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _family(int(child)))]


def _pss(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.findall(r"^Pss: +(\d+)", text, re.MULTILINE)[0]) * 1024


def _watch(pid: int, resident: list[int], ended: threading.Event) -> None:
    """Keeps the most that a process had."""
    page = os.sysconf("SC_PAGE_SIZE")
    while not ended.wait(0.05):
        resident[0] = max(resident[0], int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page)
