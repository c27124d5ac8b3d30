"""Random graphs over what the passes know, as a hypothesis strategy: valid models with inputs to run them on.

Growing a graph picks a step and a tensor, mostly a recent one, so that chains arise which passes look for. Steps are
single operators, or a few in the order of an exporter: Conv and BatchNormalization, a decomposed LayerNorm or GELU, a
shape that is computed. Weights are scaled so that values stay near 1 and differences stay rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from graph import random_steps as steps
from graph.random_steps import Choices, Shape, Sketch, Step

OPSETS = (11, 13, 14, 15, 17, 18, 20, 21)
MAX_STEPS = 10
MAX_ELEMENTS = 3000

ROUNDING = 1e-6
"""Values on the way are near 1, where one rounding is 6e-8; an output can be what is left when they cancel."""


@dataclass(frozen=True, repr=False)
class Example:
    """A model, and inputs for it."""

    model: onnx.ModelProto
    feeds: tuple[dict[str, np.ndarray], ...]

    def __repr__(self) -> str:
        shapes = [{name: array.shape for name, array in feed.items()} for feed in self.feeds]
        return f"{onnx.printer.to_text(self.model)}\non {shapes}"


_ANY = range(1, 6)
_IMAGES = range(3, 6)

STEPS: tuple[tuple[Step, range], ...] = (
    (steps.conv, _IMAGES),
    (steps.conv, _IMAGES),
    (steps.siblings, _IMAGES),
    (steps.conv_transpose, range(4, 5)),
    (steps.batchnorm, range(2, 6)),
    (steps.batchnorm, range(2, 6)),
    (steps.gemm, range(2, 3)),
    (steps.gemm, range(2, 3)),
    (steps.matmul, range(2, 6)),
    (steps.matmul, range(2, 4)),
    (steps.attention, range(3, 4)),
    (steps.arithmetic, _ANY),
    (steps.arithmetic, _ANY),
    (steps.binary, _ANY),
    (steps.activation, _ANY),
    (steps.clip, _ANY),
    (steps.gelu, _ANY),
    (steps.silu, _ANY),
    (steps.hard_swish, _ANY),
    (steps.where, _ANY),
    (steps.cast, _ANY),
    (steps.resize, range(4, 5)),
    (steps.layer_norm, range(2, 6)),
    (steps.softmax, range(2, 6)),
    (steps.pool, _IMAGES),
    (steps.pad, _IMAGES),
    (steps.transpose, _IMAGES),
    (steps.reshape, range(2, 6)),
    (steps.unsqueeze, range(1, 4)),
    (steps.concat, range(2, 6)),
    (steps.split, range(2, 6)),
    (steps.cut, range(2, 6)),
    (steps.branch, range(4, 5)),
)
"""What may come next, and for tensors of which ranks."""

_INPUTS: tuple[Shape, ...] = ((2, 3, 5, 5), (2, 4, 6, 6), (2, 4, 6), (2, 3, 4), (2, 6), (2, 4))


@st.composite
def graphs(draw: Callable[[st.SearchStrategy], object]) -> Example:
    """Models of up to ten steps, with one or two inputs, and one or several outputs."""
    choose = Choices(draw)
    sketch = Sketch(choose, opset=choose.of(OPSETS), seed=choose.number(0, 2**16))
    shapes = [choose.of(_INPUTS) for _ in range(choose.number(1, 2))]
    recent = []
    for number, shape in enumerate(shapes):
        name = sketch.input(f"x{number}", ["batch" if choose.flag() else 2, *shape[1:]])
        recent.append(sketch.record(name, shape, batched=True))
    for _ in range(choose.number(1, MAX_STEPS)):
        x = choose.of(recent[-3:][::-1])
        step = choose.of([step for step, ranks in STEPS if len(sketch.shapes[x]) in ranks])
        made = step(sketch, x)
        recent += [name for name in made or [] if math.prod(sketch.shapes[name]) <= MAX_ELEMENTS]
    outputs = list(dict.fromkeys([recent[-1], recent[-1 - choose.number(0, 3) % len(recent)]]))
    outputs = [name for name in outputs if not name.startswith("x")]
    if not outputs:
        outputs = [sketch.add("Relu", recent[-1])]
    model = sketch.model(*outputs)
    sizes = [2] if _is_fixed(model) else [1, 2, choose.of([0, 3])]
    random = np.random.default_rng(choose.number(0, 2**16))
    feeds = tuple(
        {
            f"x{number}": random.standard_normal((size, *shape[1:])).astype(np.float32)
            for number, shape in enumerate(shapes)
        }
        for size in sizes
    )
    return Example(model, feeds)


def examples(number: int) -> settings:
    """Has a test try so many graphs, the same ones whenever its code is the same."""
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large],
    )


def _is_fixed(model: onnx.ModelProto) -> bool:
    inputs = [value for value in model.graph.input if value.name.startswith("x")]
    return any(value.type.tensor_type.shape.dim[0].HasField("dim_value") for value in inputs)
