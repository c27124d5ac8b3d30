"""Runs passes over a model until they find nothing more, and holds each to the invariants."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from openclaw.errors import ConfigInvalid
from openclaw.graph.passes.contract import GraphPass
from openclaw.graph.passes.editing import Editor
from openclaw.graph.passes.verification import Interface, check_graph, check_interface, interface_of

ROUNDS = 10
"""After so many rounds over all passes it ends, whether or not there is more to find."""


class PassFailed(ir.passes.PassError):
    """A pass failed or broke an invariant; the model that it was given is spoiled.

    Attributes:
        name: of the pass. Start again from the original without it.
    """

    def __init__(self, name: str, reason: object) -> None:
        super().__init__(f"pass {name}: {reason}")
        self.name = name


def run(
    model: ir.Model, passes: Sequence[GraphPass], *, shapes: Mapping[str, Sequence[int]] | None = None
) -> dict[str, int]:
    """Applies ``passes``, in order and again until none rewrites; see ``passes.apply``."""
    _begin(model)
    if shapes:
        fix_shapes(model, shapes)
    before = interface_of(model)
    counts: dict[str, int] = {}
    early = [one for one in passes if not one.final]
    # What may be slower comes later: it takes apart what the others look for.
    sure = [one for one in early if not one.speculative]
    final = [one for one in passes if one.final]
    for group in (sure, early if len(sure) < len(early) else (), final):
        _settle(model, group, before=before, counts=counts)
    infer_shapes(model)
    return counts


def _settle(model: ir.Model, passes: Sequence[GraphPass], *, before: Interface, counts: dict[str, int]) -> None:
    """Applies ``passes`` in turn until none finds anything, and adds up what they did."""
    stale, editor = True, Editor(model)
    for _ in range(ROUNDS):
        found = 0
        for one in passes:
            if one.needs_shapes and stale:
                infer_shapes(model)
                stale = False
            rewrites = _run_one(one, editor)
            if rewrites:
                editor.forget_findings()
                _verify(one, model, before=before)
                counts[one.name] = counts.get(one.name, 0) + rewrites
                stale = True
            found += rewrites
        if not found:
            return


def _begin(model: ir.Model) -> None:
    try:
        model.graph.sort()
        check_graph(model)
    except (ValueError, ir.passes.PostconditionError) as error:
        raise ir.passes.PreconditionError(f"the model is not sound: {error}") from error


def _run_one(one: GraphPass, editor: Editor) -> int:
    try:
        one.requires(editor.model)
        return one.rewrite(editor)
    except ir.passes.PreconditionError:
        return 0
    except Exception as error:
        raise PassFailed(one.name, f"{type(error).__name__}: {error}") from error


def _verify(one: GraphPass, model: ir.Model, *, before: Interface) -> None:
    try:
        check_graph(model)
        check_interface(model, before)
    except ir.passes.PostconditionError as error:
        raise PassFailed(one.name, error) from error


def infer_shapes(model: ir.Model) -> None:
    """Writes the shapes and types that follow from the inputs to all values; what cannot be inferred stays unknown."""
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


def fix_shapes(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Declares the sizes of inputs; the model is for these alone afterwards.

    Raises:
        ConfigInvalid: there is no such input, or it has another rank or another fixed size.
    """
    inputs = {value.name: value for value in model.graph.inputs}
    for name, sizes in shapes.items():
        value = inputs.get(name)
        if value is None:
            raise ConfigInvalid(f"shapes: the model has no input {name!r}; it has {', '.join(map(repr, inputs))}")
        if value.shape is not None and not _fits(value.shape, sizes):
            raise ConfigInvalid(f"shapes: input {name!r} is {value.shape}, which {list(sizes)} does not fit")
        value.shape = ir.Shape(sizes)


def _fits(shape: ir.Shape, sizes: Sequence[int]) -> bool:
    return len(shape) == len(sizes) and all(
        not isinstance(declared, int) or declared == given for declared, given in zip(shape, sizes, strict=True)
    )


def chosen(passes: Sequence[GraphPass], only: Collection[str] | None, *, final: bool = False) -> list[GraphPass]:
    """Those of ``passes`` that ``only`` names, in the order of ``passes``; without ``only`` all but the speculative.

    Final ones are among them if ``only`` names them, or if ``final``.

    Raises:
        ConfigInvalid: ``only`` names a pass that does not exist.
    """
    if only is None:
        return [one for one in passes if (final if one.final else not one.speculative)]
    unknown = sorted(set(only) - {one.name for one in passes})
    if unknown:
        raise ConfigInvalid(f"passes: there is no {unknown[0]!r}; there are {', '.join(one.name for one in passes)}")
    return [one for one in passes if one.name in only or (final and one.final)]
