"""What runs a session: as its signature needs, and in the memory that was chosen for it."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from openclaw.execute.microbatches import MicroBatches, Run
from openclaw.execute.outputs import BoundOutputs, Empty
from openclaw.execute.values import Bfloat16Runner, uses_bfloat16
from openclaw.graph.rows import why_not_rows
from openclaw.graph.signature import Signature
from openclaw.memory.arena import ShrinkingRuns
from openclaw.memory.properties import Memory

log = logging.getLogger(__name__)


def runner(session: Any, signature: Signature, memory: Memory, *, empty: Empty | None = None) -> Run:
    """Runs the session as ``InferenceSession.run`` does.

    Args:
        session: made with the arena of ``memory``.
        signature: of its model.
        memory: how activations are held.
        empty: makes the arrays that large outputs are written to; None: onnxruntime does.

    Raises:
        ModelInvalid: onnxruntime's Python interface cannot carry the model's tensors.
    """
    source = session if empty is None else BoundOutputs(session, signature, empty)
    runs = source if memory.arena is None else ShrinkingRuns(source, memory.arena)
    run: Run = Bfloat16Runner(session, signature).run if uses_bfloat16(signature) else runs.run
    if memory.rows is None:
        return run
    if (reason := why_not_rows(signature)) is not None:
        log.warning("batches are not run %d rows at a time: %s", memory.rows, reason)
        return run
    return MicroBatches(run, memory.rows, empty or np.empty).run
