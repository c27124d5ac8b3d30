"""How few nodes onnxruntime's own ways leave of an exported model, offline: its extended level, and its optimizer for
transformers. What changes the answers does not count.
"""

from __future__ import annotations

import gc
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnxruntime
from benchmarks.graph.families.drawing import Feed
from benchmarks.graph.families.family import Family

from openclaw.errors import OpenClawError
from openclaw.inspection.operators import every_node
from openclaw.optimizer.accuracy import metrics
from openclaw.optimizer.measuring.engine import open_engine

_EQUAL = 1e-3


def count(model: onnx.ModelProto) -> int:
    """The nodes of a model and of all graphs inside it, but constants, which exporters write either way."""
    return sum(node.op_type != "Constant" for node in every_node(model.graph))


def ways(family: Family, model: onnx.ModelProto, feed: Feed, *, small: bool, threads: int) -> dict[str, int]:
    """Nodes as exported, and what each way leaves."""
    found = {"exported": count(model)}
    feeds = [feed, *_with_holes(feed)]
    reference = [open_engine(model, threads).run(each) for each in feeds]
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as folder:
        path = Path(folder) / "exported.onnx"
        onnx.save(model, path)
        for name, made in (("extended", extended(path)), *_transformers(family, path, small=small)):
            try:
                engine = open_engine(made, threads)
                same = metrics.relative(reference, [engine.run(each) for each in feeds]) <= _EQUAL
            except OpenClawError:
                same = False
            if same:
                found[name] = count(made)
    return found


def _with_holes(feed: Feed) -> Iterator[Feed]:
    """The same with tokens hidden in the middle, where there is a mask: some fusions only count how many are shown."""
    if (mask := feed.get("attention_mask")) is not None:
        holed = mask.copy()
        holed[:, 1::3] = 0
        yield {**feed, "attention_mask": holed}


def loaded(model: onnx.ModelProto) -> int:
    """How many nodes are left of a file once onnxruntime has loaded it, before it turns to this machine's layouts."""
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as folder:
        path = Path(folder) / "given.onnx"
        onnx.save(model, path)
        return count(extended(path))


def extended(path: Path) -> onnx.ModelProto:
    """What the highest level that no layout of this machine is baked into leaves."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path.with_name("extended.onnx"))
    # It warns that the file may hold what only this machine has; at this level it does not.
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath)


def _transformers(family: Family, path: Path, *, small: bool) -> Iterator[tuple[str, onnx.ModelProto]]:
    """What `onnxruntime.transformers.optimizer` leaves, with each amount of help by onnxruntime's own levels."""
    if family.transformer is None:
        return
    from onnxruntime.transformers import optimizer

    kind = family.transformer
    # It tells every fusion that it does not find.
    logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
    heads, width = kind.small if small else kind.whole
    for level in (0, 2):
        with warnings.catch_warnings():
            # It leaves a temporary folder to the garbage collector, which warns of it.
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                made = optimizer.optimize_model(
                    str(path), model_type=kind.name, num_heads=heads, hidden_size=width, opt_level=level, use_gpu=False
                )
            except Exception:
                # It raises whatever its fusions do on graphs that they were not written for.
                continue
            model = made.model
            del made
            gc.collect()
        yield f"transformers, level {level}", model
