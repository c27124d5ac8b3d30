"""``openclaw.optimize``: tries every recipe on a model, measures each, and keeps what pays within the budget."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from openclaw.optimizer import options
from openclaw.optimizer.accuracy.budget import UserMetric
from openclaw.optimizer.model import source as sources
from openclaw.optimizer.model.fixing import fixed
from openclaw.optimizer.options import Calibration
from openclaw.optimizer.progress import Silent, Watcher
from openclaw.optimizer.results.cache import Cache
from openclaw.optimizer.results.result import Result
from openclaw.optimizer.surroundings import read_machine
from openclaw.optimizer.task import Task


def optimize(
    source: str | Path | onnx.ModelProto,
    *,
    precision: str = "auto",
    calibration: Calibration | None = None,
    accuracy_budget: str | None = None,
    metric: str | UserMetric | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    fix_shapes: bool = False,
    target_latency: float | None = None,
    threads: int | None = None,
    only: Sequence[str] = (),
    engines: Sequence[str] = (),
    time_limit: float = options.TIME_LIMIT,
    memory: str = "auto",
    max_batch_size: int = options.MAX_BATCH_SIZE,
    cache: str | Path | None = None,
    progress: Watcher | None = None,
) -> Result:
    """Finds the fastest form of a model on this machine that stays within the accuracy budget.

    Args:
        source: path of an ONNX file, or the model.
        precision: ``auto`` tries all for which there is data to judge them on; ``fp32`` only what is equal within 1e-4
            relative; ``int8``, ``int4``, ``bf16`` that and these.
        calibration: an ``.npz`` file or a folder with samples, or arrays of them by input name; half of them
            calibrate, the other half judges.
        accuracy_budget: as ``top1>=0.998`` or ``cosine>=0.99,cosine-worst>=0.98``; see ``accuracy.budget``. By default
            it follows from the kind of the outputs.
        metric: ``package.module:function`` or a function ``(reference, candidate) -> float`` of the outputs by name;
            the budget bounds it as ``metric>=0.98``.
        shapes: of inputs by name, to time on; by default those of the data, or with a batch of 1 and usual sizes.
        fix_shapes: whether the result is for ``shapes`` alone, so that what a model computes of its inputs' sizes is
            constant; it is held against the model with these shapes.
        target_latency: seconds; the most exact form that meets it is taken.
        threads: that one inference may use; by default the whole cores granted to this process.
        only: names of recipes to try, by default all.
        engines: to try, of ``onnxruntime``, ``openvino``, ``cuda``, ``tensorrt``; by default all that are installed,
            or with ``fp32`` onnxruntime alone.
        time_limit: seconds; when most of them are gone no further recipe is begun, but one of lower precision in any
            case. ``math.inf``: try all.
        memory: how activations are held: ``auto``: in the way that holds the least of those that take at most 1.03 of
            the latency that the kept form has in onnxruntime's arena, and with it at most 1.02 of the exported model's;
            where no form was kept, that are no slower as far as can be told. ``least``: in the one that holds the
            least; ``default``: as onnxruntime does. What is chosen is named in the model's properties, for
            ``openclaw serve`` and :func:`openclaw.load`.
        max_batch_size: rows that requests are served in together, at most: memory is measured with as many, too.
        cache: a folder or URI (``s3://``, ``gs://``, ``az://``, ``file://``) of earlier results; None: there is none.
        progress: is told what is going on.

    Raises:
        ConfigInvalid: an argument is wrong; the sentence names it.
        ModelNotFound, ModelAccessDenied, ModelInvalid: the model cannot be read, or breaks ONNX's rules.
    """
    start = time.perf_counter()
    machine = read_machine(threads)
    chosen = options.checked(
        precision=precision,
        calibration=calibration,
        accuracy_budget=accuracy_budget,
        metric=metric,
        shapes=shapes,
        fix_shapes=fix_shapes,
        target_latency=target_latency,
        only=only,
        engines=engines,
        time_limit=time_limit,
        memory=memory,
        max_batch_size=max_batch_size,
    )
    store = None if cache is None else Cache(cache)
    given = sources.read(source)
    task = Task(fixed(given, shapes or {}) if fix_shapes else given, chosen, machine)
    return perform(task, cache=store, watcher=progress or Silent(), start=start)


def perform(task: Task, *, cache: Cache | None, watcher: Watcher, start: float) -> Result:
    """Finds the result of a task in a cache, or does it and leaves its result there.

    Args:
        task: what is to be done.
        cache: of earlier results; None: there is none.
        watcher: is told what is going on.
        start: when the time limit began, by ``time.perf_counter``.

    Raises:
        StartupError: as :func:`optimize`.
    """
    key = None if cache is None else task.key()
    result = cache.load(key, task.source.model) if cache is not None and key is not None else None
    if result is None:
        # Only now: what it takes to optimize takes longer to import than a cached result to read.
        from openclaw.optimizer.run import Run

        result = Run(task, watcher=watcher, start=start).result()
        if cache is not None and key is not None:
            cache.save(key, result)
    return replace(result, report=result.report.model_copy(update={"seconds": time.perf_counter() - start}))
