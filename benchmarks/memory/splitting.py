"""Whether a graph that is run in segments holds less than one that is run whole, each in the arena that suits it best.

A graph is cut where the fewest bytes live between two of its nodes, about where segments are equally long. All segments
take from one arena, and what no later one reads is given up between them: then the plan, and nothing else, is what
could rule there.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
from benchmarks import markdown
from benchmarks.graph.families import FAMILIES
from benchmarks.graph.families.drawing import Feed
from benchmarks.graph.run import RESULTS, say
from benchmarks.memory.settings import BATCHES, NETS
from onnx import helper, shape_inference, utils

from openclaw.devices.cpu import default_threads, read_grant
from openclaw.execute.session import session_options
from openclaw.inspection.memory import plan_of
from openclaw.memory.arena import Arena, Shrink, arena_of
from openclaw.memory.choice import candidates, region
from openclaw.memory.fitting import smallest_region
from openclaw.memory.profile import ArenaUse, arena_use

_SEGMENTS = (2, 3, 4)
_RUNS = 3
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Cut:
    """A place between two nodes: the bytes that live there, and the tensors whose they are."""

    size: int
    after: int
    tensors: tuple[str, ...]


@click.command()
@click.option(
    "--only", multiple=True, type=click.Choice(tuple(NETS)), help="This model alone; may be given several times."
)
@click.option("--batch", "batches", multiple=True, type=int, help="These batches alone.  [default: 1 and 16]")
def splitting(only: tuple[str, ...], batches: tuple[int, ...]) -> None:
    """What graphs hold in two to four segments, beside what they hold as a whole.

    Bytes alone are measured: what does not hold less need not be timed.
    """
    rows = []
    for family in FAMILIES:
        if family.name in (only or tuple(NETS)):
            model = family.build(small=False)
            for batch in batches or BATCHES:
                say(f"{family.name}, batch {batch}")
                rows.append([family.title, str(batch), *_row(model, family.feeds(batch, small=False)[0])])
    titles = ["Model", "Batch", "Default, MiB", "Whole", *[f"{count} segments" for count in _SEGMENTS]]
    text = markdown.table(titles, rows)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "memory-splitting.md").write_text(text)
    click.echo(text)


def _row(model: onnx.ModelProto, feed: Feed) -> Iterator[str]:
    """What is held by default, and what through that in the best arena: whole, and in so many segments."""
    shapes = {name: array.shape for name, array in feed.items()}
    planned = plan_of(model, name="model", shapes=shapes).plan.arena_bytes
    arenas = [arena for arena in candidates(planned).values() if arena is not None]
    known = shape_inference.infer_shapes(_with_shapes(model, shapes))
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as name:
        folder = Path(name)
        whole = [folder / "whole.onnx"]
        onnx.save(known, whole[0])
        default = held(whole, feed, None).held
        yield f"{default / _MIB:.1f}"
        yield f"{_least(partial(held, whole, feed), arenas) / default:.2f}x"
        for count in _SEGMENTS:
            paths = segments(known, cheapest(known, count), folder=folder)
            yield f"{_least(partial(held, paths, feed), arenas) / default:.2f}x"


def _least(measured: Callable[[Arena], ArenaUse], arenas: Sequence[Arena]) -> int:
    """Bytes held in the arena that suits best: one of these, or one whose first region is fitted."""
    measured = cache(measured)
    uses = [measured(arena) for arena in arenas]
    least, needed = min(use.held for use in uses), min(use.most_in_use for use in uses)
    size = smallest_region(lambda size: measured(region(size)).held, needed=needed, below=least)
    return least if size is None else measured(region(size)).held


def cheapest(model: onnx.ModelProto, count: int) -> list[Cut]:
    """Where to cut a graph into ``count`` segments of about as many nodes: there the cut that the fewest bytes cross.

    Args:
        model: with the shapes of all tensors, and the nodes in the order in which they run.
        count: of segments, from 2; fewer where no cut is near.
    """
    found, nodes = list(_cuts(model.graph)), len(model.graph.node)
    chosen = []
    for number in range(1, count):
        near = [cut for cut in found if number - 0.5 <= cut.after * count / nodes < number + 0.5]
        chosen += [min(near, key=lambda cut: cut.size)] if near else []
    return chosen


def _cuts(graph: onnx.GraphProto) -> Iterator[Cut]:
    """Every place between two nodes where the sizes of all that lives are known."""
    sizes = {each.name: _size(each) for each in graph.value_info}
    read = {name: number for number, node in enumerate(graph.node) for name in node.input}
    constant = {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    made: dict[str, int] = {}
    for number, node in enumerate(graph.node[:-1]):
        made.update(dict.fromkeys(set(node.output) - constant, number))
        alive = tuple(name for name in made if read.get(name, -1) > number)
        if all(sizes.get(name) for name in alive):
            yield Cut(sum(sizes[name] for name in alive), number, alive)


def _size(value: onnx.ValueInfoProto) -> int:
    """Bytes of a tensor; 0: they are not known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(each.HasField("dim_value") for each in tensor.shape.dim):
        return 0
    elements = prod(each.dim_value for each in tensor.shape.dim)
    return elements * np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).itemsize


def _with_shapes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for each in fixed.graph.input:
        if each.name in shapes:
            each.CopyFrom(helper.make_tensor_value_info(each.name, each.type.tensor_type.elem_type, shapes[each.name]))
    for each in fixed.graph.output:
        each.type.tensor_type.ClearField("shape")
    return fixed


def segments(model: onnx.ModelProto, cuts: Sequence[Cut], *, folder: Path) -> list[Path]:
    """Files of the graph's segments, in the order in which they run."""
    whole, paths = folder / "to-cut.onnx", []
    onnx.save(model, whole)
    weights = {each.name for each in model.graph.initializer}
    inputs = [each.name for each in model.graph.input if each.name not in weights]
    given = inputs
    ends = [*(list(cut.tensors) for cut in cuts), [each.name for each in model.graph.output]]
    for number, wanted in enumerate(ends):
        paths.append(folder / f"{number + 1}-of-{len(ends)}.onnx")
        utils.extract_model(str(whole), str(paths[-1]), given, wanted, check_model=False)
        given = [*inputs, *wanted]
    return paths


def held(paths: Sequence[Path], feed: Feed, arena: Arena | None) -> ArenaUse:
    """What the arena of all segments had in the last of some runs, and at most; without weights."""
    with tempfile.TemporaryDirectory(prefix="openclaw-profile-") as folder:
        sessions = _opened(paths, arena, Path(folder))
        for run in range(_RUNS):
            _run(sessions, feed, shrinks=arena is not None and arena.shrink is not Shrink.NEVER and run == 0)
        uses = [arena_use(json.loads(Path(each.end_profiling()).read_text())) for each in sessions]
    # What crosses a cut is in use before the next segment's first node, and no weight of it.
    weights = min(use.weights for use in uses)
    return ArenaUse(
        weights=weights,
        most_held=max(use.weights + use.most_held for use in uses) - weights,
        held=max(use.weights + use.held for use in uses) - weights,
        most_in_use=max(use.weights + use.most_in_use for use in uses) - weights,
    )


def _opened(paths: Sequence[Path], arena: Arena | None, folder: Path) -> list[Any]:
    threads = default_threads(read_grant().cores)
    sessions: list[Any] = []
    for path in paths:
        options = session_options(threads, profile=folder / path.stem)
        # Those that are made after the first take the allocator that it registered.
        if arena is None or not sessions:
            with arena_of(options, arena):
                sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
            continue
        options.enable_mem_pattern = arena.pattern
        options.add_session_config_entry("session.use_env_allocators", "1")
        sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
    return sessions


def _run(sessions: Sequence[Any], feed: Feed, *, shrinks: bool) -> None:
    options = onnxruntime.RunOptions()
    if shrinks:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    have: Feed = {}
    for session in sessions:
        names = [each.name for each in session.get_outputs()]
        values = session.run(names, {each.name: (feed | have)[each.name] for each in session.get_inputs()}, options)
        have = dict(zip(names, values, strict=True))
        del values
