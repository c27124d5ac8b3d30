"""What was made, on the other engines that are installed: an engine is kept as a form is, if it was measured to pay.

The form that is kept on another engine says so in its properties, and ``openclaw serve`` and ``openclaw.load`` heed it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx

from openclaw.errors import ConfigInvalid
from openclaw.execute.engines import OWN, PROPERTY, installed
from openclaw.optimizer.measuring.trial import Trial
from openclaw.optimizer.model.contents import portable
from openclaw.optimizer.model.properties import with_properties
from openclaw.optimizer.recipe import Judge, Made, Material, Recipe

LOWER_FORMS = 2
"""Forms of lower precision that are tried on each of the other engines: those that were the fastest on onnxruntime."""


def chosen(asked: Sequence[str], *, precision: str) -> tuple[str, ...]:
    """The engines to try, onnxruntime's own kernels left out.

    Where none is asked for, these are all that are installed; but none where only equal answers will do: to the random
    inputs they are equal, but OpenVINO's do not carry NaN through every operator.

    Raises:
        ConfigInvalid: one is not installed.
    """
    for engine in asked:
        if engine not in installed():
            raise ConfigInvalid(
                f"engines: {engine!r} is not installed; installed: {', '.join(installed())}. OpenVINO comes with "
                "pip install 'openclaw[openvino]', cuda and tensorrt with onnxruntime-gpu"
            )
    known = () if precision == "fp32" else installed()
    return tuple(engine for engine in asked or known if engine != OWN)


def recipes(engine: str, exported: onnx.ModelProto, trials: Sequence[Trial]) -> Iterator[Recipe]:
    """The exported model, its lossless forms and the fastest ones of lower precision, each on ``engine``.

    What uses onnxruntime's own operators is left out: the engine would have to hand these back.
    """
    yield _on(engine, Recipe("exported", "fp32", lambda material, judge: Made(exported)), Made(exported))
    own = [one for one in trials if one.recipe.engine == OWN]
    tried = [(one, one.made) for one in own if one.made is not None and portable(one.made.model)]
    lower = [
        (one, made)
        for one, made in tried
        if not one.lossless and one.rounds and (not one.verdict or one.verdict.within)
    ]
    lower.sort(key=lambda pair: pair[0].ratio.median)
    for one, made in [pair for pair in tried if pair[0].lossless] + lower[:LOWER_FORMS]:
        yield _on(engine, one.recipe, made)


def _on(engine: str, recipe: Recipe, made: Made) -> Recipe:
    def make(material: Material, judge: Judge) -> Made:
        return Made(with_properties(made.model, {PROPERTY: engine}), made.notes)

    return Recipe(f"{recipe.name}-{engine}", recipe.precision, make, engine=engine)
