"""The forms that cost no accuracy: the passes of ``openclaw.graph.passes``, and the proof that outputs stay equal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir

from openclaw.errors import NotApplicable
from openclaw.graph.passes import FINAL, LOSSLESS, PassFailed, apply
from openclaw.optimizer.accuracy import budget as budgets
from openclaw.optimizer.accuracy import metrics
from openclaw.optimizer.accuracy.metrics import Answers
from openclaw.optimizer.recipe import Judge, Made, Material, Recipe

_HALF = 2 * float(np.finfo(np.float16).eps)
"""Two roundings of a half-precision output: it cannot be told from another more closely."""

PLAIN = "lossless passes"
"""Where ``Material.shared`` has what the passes made, or why they made nothing."""


def rewritten(model: onnx.ModelProto, *, only: Sequence[str] | None = None) -> Made:
    """The model after the lossless passes.

    A pass that fails is left out, and named under ``failed`` of the notes.

    Args:
        model: stays as it is.
        only: names of passes; by default all that never slow a model down.

    Raises:
        NotApplicable: no pass found anything to do.
    """
    wanted = [one.name for one in LOSSLESS if not one.speculative] if only is None else list(only)
    failed: dict[str, str] = {}
    while True:
        graph = ir.from_proto(model)
        try:
            counts = apply(graph, only=wanted)
            break
        except ir.passes.PreconditionError as error:
            raise NotApplicable(f"the passes do not take this model: {error}") from error
        except PassFailed as error:
            failed[error.name] = str(error)
            wanted.remove(error.name)
    if not counts:
        raise NotApplicable("no pass found anything to rewrite" + (f"; failed: {failed}" if failed else ""))
    notes: dict[str, object] = {"passes": dict(counts)}
    return Made(ir.to_proto(graph), {**notes, "failed": failed} if failed else notes)


def equal(reference: Answers, candidate: Answers) -> str | None:
    """Why answers are not equal within 1e-4 relative (half precision: two roundings), or None.

    Numbers that are no floating-point numbers, and strings, must be the same.
    """
    if (reason := budgets.incomparable(reference, candidate)) is not None:
        return reason
    for expected, given in zip(reference, candidate, strict=True):
        for name, array in expected.items():
            if array.dtype.kind != "f":
                if not np.array_equal(array, given[name]):
                    return f"output {name!r} differs, and is {array.dtype}"
                continue
            allowed = max(budgets.LOSSLESS, _HALF if array.dtype.itemsize < 4 else 0.0)
            found = metrics.relative([{name: array}], [{name: given[name]}])
            if not found <= allowed:
                return f"output {name!r} differs by {found:.2g} relative; {allowed:.2g} is allowed"
    return None


def finished(made: Made) -> Made:
    """What the passes made, after the last ones too, which only a form that is kept as it is can take."""
    try:
        last = rewritten(made.model, only=[one.name for one in FINAL])
    except NotApplicable:
        return made
    notes = dict(made.notes)
    for name, found in last.notes.items():
        before = notes.get(name)
        notes[name] = {**before, **found} if isinstance(before, dict) and isinstance(found, dict) else found
    return Made(last.model, notes)


def passes_recipe(name: str, only: Sequence[str] | None) -> Recipe:
    """A recipe of some passes, and the final ones."""

    def make(material: Material, judge: Judge) -> Made:
        if only is not None:
            return finished(rewritten(material.exported, only=only))
        known = material.shared.get(PLAIN)
        if isinstance(known, NotApplicable):
            raise known
        return finished(known if isinstance(known, Made) else rewritten(material.exported))

    return Recipe(name, "fp32", make)
