"""What large bodies cost a server: time of its cores, page faults, and memory once nobody asks any more.

The model does next to nothing with images of ResNet50's size, so receiving them is what the server spends its time on.
With `--against`, the server of another source tree is measured by turns with this one.
"""

from __future__ import annotations

import json
import os
import statistics
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import onnx
from benchmarks import markdown
from benchmarks.graph.run import say
from benchmarks.memory.kept import BUFFERS, folder_of
from benchmarks.serving import wire
from benchmarks.serving.load import closed_loop
from benchmarks.serving.models import Arrays, ServedModel
from benchmarks.serving.report import machine
from benchmarks.serving.server import Server, running
from benchmarks.serving.subjects import SUBJECTS, Served
from benchmarks.targets import Verdict
from onnx import TensorProto, helper

_OWN = "this"
_CONNECTIONS = (1, 8)
_REST = 13.0  # seconds after which what was kept is given back


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one request, over a load; `idle` is what the server holds afterwards beyond what it held before, bytes."""

    tree: str
    connections: int
    rate: float
    p50: float
    cpu_seconds: float
    faults: float
    idle: int


def image_model() -> ServedModel:
    """Takes FP32[N,3,224,224], gives one value of each row."""

    def build() -> onnx.ModelProto:
        nodes = [helper.make_node("Slice", ["x", "from", "to", "axes"], ["y"])]
        graph = helper.make_graph(
            nodes,
            "first",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 224, 224])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1, 1, 1])],
            [helper.make_tensor(name, TensorProto.INT64, [3], values) for name, values in _BOUNDS.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    return ServedModel("images", build, _image, threads=1, batch=1)


_BOUNDS = {"from": [0, 0, 0], "to": [1, 1, 1], "axes": [1, 2, 3]}


def _image(random: np.random.Generator) -> Arrays:
    return {"x": random.standard_normal((1, 3, 224, 224), dtype=np.float32)}


def measured(tree: str, variables: Mapping[str, str], *, connections: int, seconds: float, rest: float) -> Cost:
    """Starts a server, loads it, and lets it rest for as many seconds. Raises ServerError and LoadError."""
    model = image_model()
    request = wire.post(model.name, _image(np.random.default_rng(0)), binary=True)
    with running(Served(SUBJECTS[0], model), request, variables=variables) as server:
        server.settle()
        resident, cpu, faults = server.resident(), server.cpu_seconds(), _faults(server)
        done = closed_loop(server.port, request, connections=connections, seconds=seconds)
        cpu, faults = server.cpu_seconds() - cpu, _faults(server) - faults
        requests = max(1.0, done.rate * max(1, round(seconds)))
        threading.Event().wait(rest)
        idle = server.resident() - resident
    return Cost(tree, connections, done.rate, done.p50, cpu / requests, faults / requests, idle)


def _faults(server: Server) -> int:
    """Pages that the server's process was given (minflt of proc(5))."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7])


@click.command()
@click.option("--rounds", "-r", default=3, show_default=True, help="Servers of each tree, by turns.")
@click.option("--seconds", default=5.0, show_default=True, help="That each of them is under load.")
@click.option("--rest", default=_REST, show_default=True, help="Seconds after the load, before memory is looked at.")
@click.option("--against", type=click.Path(exists=True, path_type=Path), help="Root of another source tree.")
@click.option("--quick", is_flag=True, help="One round of a second, and no rest: whether it works.")
@click.option("--results", type=click.Path(path_type=Path), help="Folder for JSON and table.")
def buffers(
    rounds: int, seconds: float, *, rest: float, against: Path | None, quick: bool, results: Path | None
) -> None:
    """Large bodies: what one costs the server, and what is left of them afterwards."""
    rounds, seconds, rest = (1, 1.0, 0.0) if quick else (rounds, seconds, rest)
    facts = machine()
    own = Served(SUBJECTS[0], image_model()).environment()["PYTHONPATH"]
    trees = {_OWN: own}
    if against is not None:
        trees["other"] = os.pathsep.join([str(against / "runtime"), str(against), own])
    costs = []
    for number in range(rounds):
        for connections in _CONNECTIONS:
            for tree, path in trees.items():
                variables = {"PYTHONPATH": path}
                costs.append(measured(tree, variables, connections=connections, seconds=seconds, rest=rest))
                last = costs[-1]
                say(
                    f"round {number + 1} of {rounds}: {tree}, {connections} connections: {last.rate:.0f}/s, "
                    f"{last.cpu_seconds * 1e6:.0f} us of a core, {last.faults:.1f} faults a request"
                )
    to = folder_of(results, quick=quick)
    document = {"machine": facts, "costs": [asdict(each) for each in costs], "verdicts": [asdict(told(costs))]}
    text = f"# Large bodies\n\nCommit {facts['commit']}; {facts['date']}.\n\n{_table(costs)}"
    (to / f"{BUFFERS}.json").write_text(json.dumps(document, indent=1) + "\n")
    (to / f"{BUFFERS}.md").write_text(text)
    click.echo(text)


def told(costs: list[Cost]) -> Verdict:
    """What a body of 588 KiB costs this tree's server; nothing is asked for."""
    parts = []
    for connections in _CONNECTIONS:
        own = [each for each in costs if (each.tree, each.connections) == (_OWN, connections)]
        cpu = statistics.median(each.cpu_seconds for each in own)
        parts.append(f"{cpu * 1e6:.0f} us of a core with {connections} connection{'s' if connections > 1 else ''}")
    idle = statistics.median(each.idle for each in costs if each.tree == _OWN)
    return Verdict("A body of 588 KiB", f"{', '.join(parts)}; {idle / 2**20:.1f} MiB left when idle", None)


def _table(costs: list[Cost]) -> str:
    rows = []
    for tree, connections in sorted({(each.tree, each.connections) for each in costs}):
        own = [each for each in costs if (each.tree, each.connections) == (tree, connections)]
        rate, p50, cpu, faults, idle = (
            statistics.median([float(getattr(each, name)) for each in own])
            for name in ("rate", "p50", "cpu_seconds", "faults", "idle")
        )
        rows.append(
            [tree, str(connections), f"{rate:.0f}", f"{p50 * 1e3:.2f}", f"{cpu * 1e6:.0f}", f"{faults:.1f}",
             f"{idle / 2**20:.1f}"]
        )  # fmt: skip
    return markdown.table(
        ["Tree", "Connections", "Requests/s", "p50 ms", "us of a core", "Faults", "MiB left when idle"], rows
    )
