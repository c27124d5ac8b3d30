"""The last step of an optimization: the model that is given out names in its properties how it holds activations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from openclaw.devices.cpu import read_grant
from openclaw.execute.engines import OWN, engine_of
from openclaw.memory.choice import SLOWER
from openclaw.memory.properties import ARENA, ROWS, Memory
from openclaw.optimizer.measuring.engine import brief, open_engine
from openclaw.optimizer.measuring.feeds import Inputs
from openclaw.optimizer.measuring.selection import NOT_SLOWER
from openclaw.optimizer.measuring.trial import form_of
from openclaw.optimizer.memory.cases import cases, size
from openclaw.optimizer.memory.choosing import Chooser, Chosen
from openclaw.optimizer.memory.holding import held
from openclaw.optimizer.model.properties import with_properties
from openclaw.optimizer.options import Options
from openclaw.optimizer.recipe import Feed
from openclaw.optimizer.results.report import Report
from openclaw.optimizer.results.result import Result


def with_memory(
    result: Result, inputs: Inputs, timed: Sequence[Feed], *, options: Options, threads: int, ends: float
) -> Result:
    """The result with what was chosen for its memory; whatever goes wrong costs only that, and is told in the report.

    Args:
        result: of an optimization, with its weights in the model.
        inputs: of the model.
        timed: feeds of the user's shapes.
        options: what is asked for.
        threads: of one inference.
        ends: when no further way is measured, by ``time.perf_counter``.
    """
    properties = {each.key: each.value for each in result.model.metadata_props}
    if options.memory == "default":
        return _given(result, Memory(), properties)
    engine = engine_of(properties)
    if engine != OWN:
        return _noted(_given(result, Memory(), properties), f"Memory is left to {engine}.")
    try:
        found = _chosen(result, inputs, timed, options=options, threads=threads, ends=ends)
    except Exception as error:
        # Foreign code over a model that nobody foresaw, as in a trial: what it raises must not cost the result.
        return _noted(result, f"Memory is held as onnxruntime does: measuring failed: {brief(error)}")
    given = _given(result, found.memory, properties)
    verdict = f"{given.report.verdict} {found.report.verdict}"
    return replace(given, report=given.report.model_copy(update={"memory": found.report, "verdict": verdict}))


def _chosen(
    result: Result, inputs: Inputs, timed: Sequence[Feed], *, options: Options, threads: int, ends: float
) -> Chosen:
    with TemporaryDirectory(prefix="openclaw-memory-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(result.model.SerializeToString())
        largest = max(timed, key=size)
        measured = cases(
            open_engine(path, threads),
            inputs,
            timed,
            most=options.max_batch_size,
            seconds=ends - time.perf_counter(),
            held=held(path, largest, Memory(), threads=threads).held,
            grant=read_grant(),
        )
        chooser = Chooser(
            result.model,
            path,
            measured,
            threads=threads,
            asked=options.memory,
            ends=ends,
            seed=options.seed,
            allowed=allowance(result.report),
        )
        return chooser.chosen()


def allowance(report: Report) -> float:
    """How much of its latency with onnxruntime's own arena a model may take, so that what is given out is not slower.

    A form that was kept and its memory together take at most ``NOT_SLOWER`` of the exported model's latency, going by
    the upper bound of the form's. The exported model itself may become no slower, as far as can be told.

    Args:
        report: of the forms.
    """
    kept = [one.ratio for one in report.candidates if one.outcome == "kept" and one.ratio is not None]
    return min(SLOWER, max(1.0, NOT_SLOWER / kept[0].upper)) if kept else 1.0


def _given(result: Result, memory: Memory, properties: dict[str, str]) -> Result:
    """The result whose model says so, and nothing else of memory."""
    said = memory.properties()
    if said == {key: value for key, value in properties.items() if key in (ARENA, ROWS)}:
        return result
    model = with_properties(result.model, said, without=(ARENA, ROWS))
    return replace(result, model=model, report=result.report.model_copy(update={"result": form_of(model)}))


def _noted(result: Result, note: str) -> Result:
    notes = [*result.report.notes, note]
    return replace(result, report=result.report.model_copy(update={"notes": notes}))
