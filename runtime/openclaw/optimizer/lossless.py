"""The forms that cost no accuracy: the passes of ``openclaw.graph.passes``, and the proof that outputs stay equal.

LayerNormalization is an operator from operator set 17 on, and onnxruntime's Attention comes after a Softmax as it is
from 13 on. Models of older sets, which many exporters write, are converted first where fewer nodes come of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from openclaw.errors import NotApplicable
from openclaw.graph.passes import FINAL, LOSSLESS, PassFailed, apply
from openclaw.graph.passes.contract import NodePass
from openclaw.optimizer.accuracy import budget as budgets
from openclaw.optimizer.accuracy import metrics
from openclaw.optimizer.accuracy.metrics import Answers
from openclaw.optimizer.model.contents import count_computing
from openclaw.optimizer.model.opset import opset_of, raised
from openclaw.optimizer.recipe import Judge, Made, Material, Recipe

_HALF = 2 * float(np.finfo(np.float16).eps)
"""Two roundings of a half-precision output: it cannot be told from another more closely."""

PLAIN = "lossless passes"
"""Where ``Material.shared`` has what the passes made, or why they made nothing."""


OPSET = 17
"""The operator set in which every pass finds what it looks for."""
CONVERTED = "operator set"
"""The note that tells of a conversion."""
_LAST = tuple(one.name for one in FINAL)


def rewritten(model: onnx.ModelProto, *, only: Sequence[str] | None = None, converts: bool = True) -> Made:
    """The model after the lossless passes, in a later operator set where it ends with fewer nodes there.

    A pass that fails is left out, and named under ``failed`` of the notes.

    Args:
        model: stays as it is.
        only: names of passes; by default all that never slow a model down.
        converts: whether the operator set may change.

    Raises:
        NotApplicable: no pass found anything to do.
    """
    wanted = _plain() if only is None else list(only)
    made: Made | NotApplicable
    try:
        made = _applied(model, wanted)
    except NotApplicable as error:
        made = error
    if converts and _held_back(model, wanted):
        try:
            later = _applied(raised(model, OPSET), wanted)
        except NotApplicable:
            pass
        else:
            before = made.model if isinstance(made, Made) else model
            if count_computing(later.model.graph) < count_computing(before.graph):
                return Made(later.model, {**later.notes, CONVERTED: f"{opset_of(model)}, converted to {OPSET}"})
    if isinstance(made, NotApplicable):
        raise made
    return made


def _plain() -> list[str]:
    return [one.name for one in LOSSLESS if not one.speculative]


def _applied(model: onnx.ModelProto, names: Sequence[str]) -> Made:
    wanted = list(names)
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


def _held_back(model: onnx.ModelProto, names: Sequence[str]) -> bool:
    """Whether a pass does not know the model's operator set, and the model has what the pass looks at."""
    version = opset_of(model)
    if version >= OPSET:
        return False
    left_out = [one for one in (*LOSSLESS, *FINAL) if one.name in names and version not in one.opsets]
    there = {node.op_type for node in model.graph.node}
    return any(isinstance(one, NodePass) and not there.isdisjoint(one.operators) for one in left_out)


def proven(
    model: onnx.ModelProto, holds: Callable[[onnx.ModelProto], bool]
) -> tuple[Made | NotApplicable, onnx.ModelProto]:
    """What the passes make of a model, or why nothing; and the form of the model to make others from.

    Where a form that was converted does not hold, the passes take the model in the operator set that it is in.

    Args:
        model: stays as it is.
        holds: whether a form answers as the model does.
    """
    try:
        made = rewritten(model)
        good = holds(made.model)
        if not good and CONVERTED in made.notes:
            made = rewritten(model, converts=False)
            good = holds(made.model)
    except NotApplicable as error:
        return error, model
    return made, made.model if good else model


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
        return _further(made, _LAST)
    except NotApplicable:
        return made


def _further(made: Made, names: Sequence[str]) -> Made:
    """What more passes make of it; the notes tell of all. Raises NotApplicable: they find nothing."""
    more = rewritten(made.model, only=names)
    notes = dict(made.notes)
    for name, found in more.notes.items():
        before = notes.get(name)
        notes[name] = {**before, **found} if isinstance(before, dict) and isinstance(found, dict) else found
    return Made(more.model, notes)


def _known(material: Material) -> Made | NotApplicable:
    """What the plain passes make, or why nothing; once for all recipes."""
    if PLAIN not in material.shared:
        try:
            material.shared[PLAIN] = rewritten(material.exported)
        except NotApplicable as error:
            material.shared[PLAIN] = error
    known: Made | NotApplicable = material.shared[PLAIN]
    return known


def passes_recipe(name: str, speculative: Sequence[str] = ()) -> Recipe:
    """A recipe of the passes that never slow a model down, of some that may, and of the final ones.

    The final ones may be all that there is to do, unless there are ``speculative`` ones.
    """

    def make(material: Material, judge: Judge) -> Made:
        known = _known(material)
        if speculative:
            start = known if isinstance(known, Made) else Made(material.exported)
            return finished(_further(start, [*_plain(), *speculative]))
        return finished(known) if isinstance(known, Made) else rewritten(material.exported, only=_LAST)

    return Recipe(name, "fp32", make)
