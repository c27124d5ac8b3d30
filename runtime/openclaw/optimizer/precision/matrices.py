"""INT8 for graphs of matrix products: transformers, recommenders, plain networks.

``int8-dynamic`` needs no data: every run finds the scale of every product's input. ``int8-matrices`` takes scales from
the calibration data, and where the budget does not hold smooths inputs (``scaling``), as few as are needed, each of
which costs a multiplication. ``int8-matrices-smooth`` smooths all where it takes off enough of the loss: the most
accurate. Weights have a scale for every output; embedding tables one for every row. Both are also made in ONNX's own
operators for OpenVINO, which fuses more around products in 8 bits than onnxruntime's kernels do.

If the budget does not hold still, layers go back to float (``sensitivity``); the estimate of a layer's harm is the
share of its product's energy that rounding takes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from openclaw.errors import NotApplicable
from openclaw.execute.engines import OPENVINO, OWN, PROPERTY
from openclaw.graph.passes.editing import Editor
from openclaw.optimizer.model.contents import portable
from openclaw.optimizer.precision.elsewhere import need
from openclaw.optimizer.precision.embedding import lower_tables
from openclaw.optimizer.precision.instructions import kind_of
from openclaw.optimizer.precision.layers import Group, groups
from openclaw.optimizer.precision.loosening import loosen, subtract
from openclaw.optimizer.precision.lowering import Lowering, PairedLowering
from openclaw.optimizer.precision.observing import observe
from openclaw.optimizer.precision.preparing import prepared
from openclaw.optimizer.precision.reach import worth_matrices
from openclaw.optimizer.precision.scaling import Choice, Observed, bias_correction, choose
from openclaw.optimizer.precision.sensitivity import WITHIN, fall_back, within_budget
from openclaw.optimizer.recipe import Judge, Made, Material, Recipe

NONE: frozenset[str] = frozenset()
_QUANTIZER = "quantizer of matrices"


@dataclass(frozen=True)
class Form:
    """What is done to which groups of layers.

    Attributes:
        floats: stay in float.
        smoothed: have their inputs smoothed, where that pays.
    """

    floats: frozenset[str] = NONE
    smoothed: frozenset[str] = NONE


class Quantizer:
    """A model taken apart for 8 bits, from which its forms are made.

    Attributes:
        names: of the groups of layers that can be lowered.
        harms: an estimate for each, lowered with smoothing if it is static.
        gains: what smoothing takes off a group's harm, for every column it multiplies; those it does not pay for are
            left out.

    Raises:
        NotApplicable: there is no product with a constant matrix.
    """

    def __init__(self, material: Material, *, static: bool, engine: str = OWN) -> None:
        self._static = static
        self._kind = kind_of(material.instructions)
        self._engine = engine
        self._model = _loosened(prepared(material.fused)) if engine == OWN else prepared(material.exported)
        found = {group.name: group for group in groups(ir.from_proto(self._model).graph)}
        if not found:
            raise NotApplicable("the model has no product with a constant matrix of 32-bit floats")
        self._observed = _observed(self._model, material, found=found)
        if static:
            found = {name: group for name, group in found.items() if name in self._observed}
            if not found:
                raise NotApplicable("the calibration data reaches no product with finite numbers")
        self.names = list(found)
        known = {name: group for name, group in found.items() if name in self._observed}
        self._plain = {name: self._choice(group, smooth=False) for name, group in known.items()}
        self._smooth = {name: self._choice(group, smooth=True) for name, group in known.items()} if static else {}
        best = self._smooth if static else self._plain
        self.harms = {name: best[name].loss if name in best else 0.0 for name in self.names}
        self.gains = {
            name: (self._plain[name].loss - choice.loss) / len(choice.smooth)
            for name, choice in self._smooth.items()
            if choice.smooth is not None
        }

    def form(self, form: Form) -> onnx.ModelProto:
        """The model in INT8, but for what ``form`` says."""
        model = ir.from_proto(self._model)
        editor = Editor(model)
        lowering = (Lowering if self._engine == OWN else PairedLowering)(editor, self._kind)
        for group in groups(model.graph):
            if group.name in form.floats or group.name not in self.names:
                continue
            if self._static:
                choice = (self._smooth if group.name in form.smoothed else self._plain)[group.name]
                lowering.static(group, choice, self._correction(group, choice))
            else:
                lowering.dynamic(group)
        lower_tables(editor)
        subtract(editor)
        if self._engine != OWN:
            model.metadata_props[PROPERTY] = self._engine
        return ir.to_proto(model)

    def _choice(self, group: Group, *, smooth: bool) -> Choice:
        return choose(
            self._observed[group.name],
            group.weight,
            limit=self._kind.weight_limit,
            signed=self._kind.signed_activations,
            smooth=smooth,
            clip=self._static,
        )

    def _correction(self, group: Group, choice: Choice) -> npt.NDArray[np.float32]:
        rows = self._observed[group.name].rows
        limit, signed = self._kind.weight_limit, self._kind.signed_activations
        return bias_correction(rows, group.weight, choice, limit=limit, signed=signed)


def _loosened(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = ir.from_proto(model)
    loosen(Editor(graph))
    return ir.to_proto(graph)


def _observed(model: onnx.ModelProto, material: Material, *, found: Mapping[str, Group]) -> dict[str, Observed]:
    feeds = material.calibration
    if not feeds:
        return {}
    inputs = {name: group.x.name or "" for name, group in found.items()}
    values = observe(model, sorted(set(inputs.values())), feeds, threads=material.threads)
    return {name: values[x] for name, x in inputs.items() if x in values}


@dataclass
class _Judging:
    """Judges forms, each once."""

    quantizer: Quantizer
    judge: Judge
    ends: float
    known: dict[Form, float] = field(default_factory=dict)

    def __call__(self, form: Form) -> float:
        if form not in self.known:
            self.known[form] = self.judge(self.quantizer.form(form))
        return self.known[form]


def make(material: Material, judge: Judge, *, static: bool, smooth: bool = False, engine: str = OWN) -> Made:
    """INT8 for the products with constant matrices, smoothed and left in float as the budget asks for.

    Args:
        material: what there is.
        judge: of a form; more than 1 breaks the budget.
        static: whether scales come from the calibration data.
        smooth: whether to smooth wherever it pays, not only as far as the budget asks for it.
        engine: what it is made for.

    Raises:
        NotApplicable: the model or the engine does not fit, or no form held the budget.
    """
    worth_matrices(material)
    need(engine)
    if engine != OWN and not portable(material.exported):
        raise NotApplicable(f"the exported model has operators of onnxruntime's own, which {engine} does not know")
    quantizer = _quantizer(material, static=static, engine=engine)
    if smooth and not quantizer.gains:
        raise NotApplicable("smoothing takes off too little of any layer's loss")
    judging = _Judging(quantizer, judge, material.ends)
    every = frozenset(quantizer.gains)
    form = Form(smoothed=every) if smooth else _fewest_smoothed(judging, every)
    if judging(form) > WITHIN:
        form = _fewest_floats(judging, every)
    notes: dict[str, object] = {
        "layers": len(quantizer.names),
        "float layers": sorted(form.floats),
        "smoothed layers": sorted(form.smoothed - form.floats),
    }
    return Made(quantizer.form(form), notes)


def _quantizer(material: Material, *, static: bool, engine: str) -> Quantizer:
    """The one that the recipe before left behind, if it is of the same kind: it is long in the making.

    No other is kept, for each holds a copy of the model.
    """
    kind = (static, engine)
    left: tuple[tuple[bool, str], Quantizer] | None = material.shared.get(_QUANTIZER)
    if left is not None and left[0] == kind:
        return left[1]
    material.shared.pop(_QUANTIZER, None)
    quantizer = Quantizer(material, static=static, engine=engine)
    material.shared[_QUANTIZER] = kind, quantizer
    return quantizer


def _fewest_smoothed(judging: _Judging, every: frozenset[str]) -> Form:
    """The form with the fewest groups smoothed that holds; with all, if none does."""
    if not every or judging(Form()) <= WITHIN:
        return Form()
    if judging(Form(smoothed=every)) > WITHIN:
        return Form(smoothed=every)
    found = fall_back(judging.quantizer.gains, lambda smoothed: judging(Form(smoothed=smoothed)), ends=judging.ends)
    return Form(smoothed=every) if found is None else Form(smoothed=frozenset(found.floats))


def _fewest_floats(judging: _Judging, smoothed: frozenset[str]) -> Form:
    """The form with the fewest groups in float that holds; raises NotApplicable if none does."""
    found = within_budget(
        judging.quantizer.harms, lambda floats: judging(Form(floats=floats, smoothed=smoothed)), ends=judging.ends
    )
    return Form(floats=frozenset(found.floats), smoothed=smoothed)


_SMOOTH = functools.partial(make, static=True, smooth=True)

RECIPES: tuple[Recipe, ...] = (
    # Those that mostly are the fastest come first, for time may run out.
    *(
        Recipe(f"{name}{suffix}", "int8", functools.partial(way, engine=engine), needs_calibration=True, engine=engine)
        for engine, suffix in ((OPENVINO, f"-{OPENVINO}"), (OWN, ""))
        for name, way in (("int8-matrices", functools.partial(make, static=True)), ("int8-matrices-smooth", _SMOOTH))
    ),
    Recipe("int8-dynamic", "int8", functools.partial(make, static=False)),
)
