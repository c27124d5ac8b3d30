"""Random inputs of the user's shapes: to time a model on, and to see whether two forms of it agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx

from openclaw.errors import ConfigInvalid, InferenceFailed
from openclaw.graph import bfloat16
from openclaw.graph.signature import Signature, TensorSpec
from openclaw.optimizer.measuring.engine import Engine
from openclaw.optimizer.recipe import Feed

Array = npt.NDArray[np.generic]
Shapes = Mapping[str, tuple[int, ...]]

_WORDS = np.array(["", "a", "openclaw", "ünïcode", "0", "-1.5"], dtype=object)
# Sizes of free dimensions behind the first that are tried, until the model runs.
_PICTURE, _SEQUENCES, _LEAST = 224, (128, 16), 1


@dataclass(frozen=True)
class Inputs:
    """What is known of a model's inputs: their signature, names of free dimensions, and how far indices may go."""

    signature: Signature
    dimensions: Mapping[str, tuple[str, ...]]
    limits: Mapping[str, int]

    @classmethod
    def of(cls, model: onnx.ModelProto, signature: Signature) -> Inputs:
        """Reads them from a model."""
        dimensions = {
            value.name: tuple(size.dim_param for size in value.type.tensor_type.shape.dim)
            for value in model.graph.input
        }
        return cls(signature, dimensions, _limits(model.graph))


def _limits(graph: onnx.GraphProto) -> dict[str, int]:
    """By name of an input that picks rows of a table: how many there are. Casts in between are looked through."""
    rows = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    behind = {value.name: value.name for value in graph.input}
    limits: dict[str, int] = {}
    for node in graph.node:
        if node.op_type in ("Cast", "Identity") and node.input[0] in behind:
            behind[node.output[0]] = behind[node.input[0]]
        if node.op_type != "Gather" or node.input[0] not in rows or node.input[1] not in behind:
            continue
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        name, size = behind[node.input[1]], rows[node.input[0]][axis]
        limits[name] = min(size, limits.get(name, size))
    return limits


def check_shapes(shapes: Mapping[str, Sequence[int]], signature: Signature) -> Shapes:
    """Holds the user's shapes against the signature; raises ConfigInvalid."""
    for name, shape in shapes.items():
        spec = signature.inputs_by_name.get(name)
        if spec is None:
            takes = ", ".join(str(one) for one in signature.inputs) or "none"
            raise ConfigInvalid(f"shapes: there is no input {name!r}; the model takes {takes}")
        if any(size < 1 for size in shape) or not (spec.accepts(tuple(shape)) or not spec.shape):
            raise ConfigInvalid(
                f"shapes: {name!r} is given {list(shape)}; the model takes {list(spec.shape)} (-1: any size from 1)"
            )
    return {name: tuple(shape) for name, shape in shapes.items()}


def guess_shapes(inputs: Inputs, given: Shapes, engine: Engine, *, seed: int) -> Shapes:
    """Shapes with which the model runs: the user's, and for what they leave free a batch of 1 and usual sizes.

    Raises:
        ConfigInvalid: it runs with none of those tried.
    """
    tried: list[Shapes] = []
    refusal = ""
    for guess in _guesses(inputs, given):
        if guess in tried:
            continue
        tried.append(guess)
        try:
            engine.run(random_feed(inputs, guess, rng=np.random.default_rng(seed)))
        except InferenceFailed as error:
            refusal = refusal or str(error)
        else:
            return guess
    raise ConfigInvalid(
        f"shapes: the model does not run on random inputs of {_listed(tried[0])} ({refusal}); say with shapes "
        "(--shape NAME=1,3,224,224) which sizes it takes, or give calibration data"
    )


def _guesses(inputs: Inputs, given: Shapes) -> Iterator[Shapes]:
    for sequence in (*_SEQUENCES, _LEAST):
        for picture in (_PICTURE, 64, _LEAST):
            yield _filled(inputs, given, partial(_usual, picture=picture, sequence=sequence))


def _usual(spec: TensorSpec, at: int, *, picture: int, sequence: int) -> int:
    if at == 0:
        return 1
    return picture if len(spec.shape) >= 4 and spec.dtype.kind in "fu" else sequence


def _filled(inputs: Inputs, given: Shapes, choose: Callable[[TensorSpec, int], int]) -> Shapes:
    """All shapes; a named dimension has one size wherever it stands, the user's before the chosen."""
    named: dict[str, int] = {}
    for name, shape in given.items():
        for label, size in zip(inputs.dimensions.get(name, ()), shape, strict=False):
            if label:
                named.setdefault(label, size)
    shapes = {}
    for spec in inputs.signature.inputs:
        labels = inputs.dimensions.get(spec.name, ())
        sizes: list[int] = []
        for at, size in enumerate(spec.shape):
            label = labels[at] if at < len(labels) else ""
            wanted = size if size >= 0 else named.get(label) or choose(spec, at)
            if size < 0 and label:
                named.setdefault(label, wanted)
            sizes.append(wanted)
        shapes[spec.name] = given.get(spec.name, tuple(sizes))
    return shapes


def other_sizes(inputs: Inputs, shapes: Shapes) -> Shapes:
    """The same with every free dimension one larger, to notice a form that only works for the sizes it was made on."""
    return {
        spec.name: tuple(
            size + 1 if free < 0 else size for size, free in zip(shapes[spec.name], spec.shape, strict=False)
        )
        if spec.shape
        else shapes[spec.name]
        for spec in inputs.signature.inputs
    }


def random_feed(inputs: Inputs, shapes: Shapes, *, rng: np.random.Generator, scale: float = 1.0) -> Feed:
    """One run's inputs.

    Args:
        inputs: of the model.
        shapes: of every input.
        rng: which values.
        scale: standard deviation of floating-point values.
    """
    return {
        spec.name: _random(spec, shapes[spec.name], rng=rng, scale=scale, limit=inputs.limits.get(spec.name, 2))
        for spec in inputs.signature.inputs
    }


def _random(spec: TensorSpec, shape: tuple[int, ...], *, rng: np.random.Generator, scale: float, limit: int) -> Array:
    if spec.datatype == "BYTES":
        return np.asarray(rng.choice(_WORDS, size=shape), dtype=object)
    if spec.datatype == "BOOL":
        return np.asarray(rng.integers(0, 2, size=shape, dtype=np.uint8).astype(np.bool_))
    if spec.datatype == "BF16":
        return bfloat16.to_bits((rng.standard_normal(shape) * scale).astype(np.float32))
    if spec.dtype.kind == "f":
        return np.asarray(rng.standard_normal(shape) * scale).astype(spec.dtype)
    # Bytes are most often pixels; other integers are indices or masks, of which 0 and 1 are always allowed.
    top = 256 if spec.datatype == "UINT8" and limit == 2 and len(shape) > 2 else limit
    return np.asarray(rng.integers(0, top, size=shape)).astype(spec.dtype)


def _listed(shapes: Shapes) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
