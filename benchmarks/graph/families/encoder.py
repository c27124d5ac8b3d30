"""Parts of transformers in the form that plain exporters give them: everything taken apart into arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from benchmarks.graph.families.drawing import Array, Drawing, Feed


class Weights(Protocol):
    """Where weights come from: drawn, or trained."""

    def __call__(self, name: str, *shape: int) -> Array:
        """The weight with this name in the published checkpoint; linear weights are [out, in] there."""


def linear(drawing: Drawing, x: str, *, weight: Array, bias: Array) -> str:
    """MatMul and Add, as exporters write a linear layer on three dimensions."""
    return drawing.add("Add", drawing.constant(bias), drawing.add("MatMul", x, drawing.constant(weight.T)))


def normal(drawing: Drawing, x: str, *, scale: Array, bias: Array, epsilon: float) -> str:
    """Layer normalization from means: (x - E[x]) / sqrt(E[(x - E[x])^2] + e) * scale + bias."""
    apart = drawing.add("Sub", x, drawing.add("ReduceMean", x, axes=[-1]))
    variance = drawing.add("ReduceMean", drawing.add("Pow", apart, drawing.constant(2.0)), axes=[-1])
    deviation = drawing.add("Sqrt", drawing.add("Add", variance, drawing.constant(epsilon)))
    scaled = drawing.add("Mul", drawing.add("Div", apart, deviation), drawing.constant(scale))
    return drawing.add("Add", scaled, drawing.constant(bias))


def gelu(drawing: Drawing, x: str) -> str:
    """The exact one: x * (1 + erf(x / sqrt 2)) / 2."""
    erf = drawing.add("Erf", drawing.add("Div", x, drawing.constant(2**0.5)))
    half = drawing.add("Mul", x, drawing.add("Add", erf, drawing.constant(1.0)))
    return drawing.add("Mul", half, drawing.constant(0.5))


def sizes(drawing: Drawing, x: str, count: int) -> list[str]:
    """The first `count` dimensions of x, computed in the graph, each as a vector of one."""
    shape = drawing.add("Shape", x)
    return [
        drawing.add("Unsqueeze", drawing.add("Gather", shape, drawing.integer(axis), axis=0), drawing.integers(0))
        for axis in range(count)
    ]


def reshaped(drawing: Drawing, x: str, *, kept: int, rest: Sequence[int]) -> str:
    """A tensor with its first `kept` dimensions, and then these."""
    parts = [*sizes(drawing, x, kept), *(drawing.integers(size) for size in rest)]
    return drawing.add("Reshape", x, drawing.add("Concat", *parts, axis=0))


def split(drawing: Drawing, x: str, *, heads: int, width: int, keys: bool = False) -> str:
    """[N, S, width] apart into heads: [N, heads, S, width / heads]; keys with the last two dimensions exchanged."""
    apart = reshaped(drawing, x, kept=2, rest=(heads, width // heads))
    return drawing.add("Transpose", apart, perm=[0, 2, 3, 1] if keys else [0, 2, 1, 3])


def attended(drawing: Drawing, parts: tuple[str, str, str], *, size: int, mask: str | None) -> str:
    """softmax(q k / sqrt(size) + mask) v over heads, `parts` being q, k and v; and the heads together again."""
    queries, keys, values = parts
    scores = drawing.add("Div", drawing.add("MatMul", queries, keys), drawing.constant(size**0.5))
    if mask is not None:
        scores = drawing.add("Add", scores, mask)
    seen = drawing.add("MatMul", drawing.add("Softmax", scores, axis=-1), values)
    return drawing.add("Transpose", seen, perm=[0, 2, 1, 3])


@dataclass(frozen=True, slots=True)
class Bert:
    """The encoder of BERT (J. Devlin et al. 2019, arXiv:1810.04805), by the names of its published checkpoints."""

    drawing: Drawing
    weights: Weights
    layers: int
    width: int
    heads: int
    inner: int
    vocabulary: int
    positions: int = 512
    epsilon: float = 1e-12

    def draw(self) -> str:
        """From `input_ids`, `attention_mask` and `token_type_ids` to the last hidden state."""
        drawing = self.drawing
        present = drawing.add("Cast", drawing.add("Unsqueeze", "attention_mask", drawing.integers(1, 2)), to=1)
        absent = drawing.add("Sub", drawing.constant(1.0), present)
        mask = drawing.add("Mul", absent, drawing.constant(-10_000.0))
        x = self._embedded()
        for layer in range(self.layers):
            x = self._layer(x, at=f"encoder.layer.{layer}.", mask=mask)
        return x

    def _embedded(self) -> str:
        drawing, at = self.drawing, "embeddings."
        words = drawing.constant(self.weights(f"{at}word_embeddings.weight", self.vocabulary, self.width))
        types = drawing.constant(self.weights(f"{at}token_type_embeddings.weight", 2, self.width))
        places = drawing.constant(self.weights(f"{at}position_embeddings.weight", self.positions, self.width)[None])
        length = drawing.add("Gather", drawing.add("Shape", "input_ids"), drawing.integer(1), axis=0)
        length = drawing.add("Unsqueeze", length, drawing.integers(0))
        place = drawing.add("Slice", places, drawing.integers(0), length, drawing.integers(1))
        word, kind = drawing.add("Gather", words, "input_ids"), drawing.add("Gather", types, "token_type_ids")
        return self._normal(drawing.add("Add", drawing.add("Add", word, kind), place), at=f"{at}LayerNorm")

    def _layer(self, x: str, *, at: str, mask: str) -> str:
        drawing, width = self.drawing, self.width
        parts = [self._linear(x, at=f"{at}attention.self.{part}", out=width) for part in ("query", "key", "value")]
        queries, keys, values = (
            split(drawing, part, heads=self.heads, width=width, keys=number == 1) for number, part in enumerate(parts)
        )
        seen = attended(drawing, (queries, keys, values), size=width // self.heads, mask=mask)
        seen = reshaped(drawing, seen, kept=2, rest=(width,))
        seen = self._linear(seen, at=f"{at}attention.output.dense", out=width)
        x = self._normal(drawing.add("Add", seen, x), at=f"{at}attention.output.LayerNorm")
        wide = gelu(drawing, self._linear(x, at=f"{at}intermediate.dense", out=self.inner))
        narrow = self._linear(wide, at=f"{at}output.dense", out=width, taken=self.inner)
        return self._normal(drawing.add("Add", narrow, x), at=f"{at}output.LayerNorm")

    def _linear(self, x: str, *, at: str, out: int, taken: int | None = None) -> str:
        weight = self.weights(f"{at}.weight", out, taken or self.width)
        return linear(self.drawing, x, weight=weight, bias=self.weights(f"{at}.bias", out))

    def _normal(self, x: str, *, at: str) -> str:
        scale, bias = self.weights(f"{at}.weight", self.width), self.weights(f"{at}.bias", self.width)
        return normal(self.drawing, x, scale=scale, bias=bias, epsilon=self.epsilon)


def drawn(seed: int = 0) -> Weights:
    """Random weights that keep the size of what passes through: scales near one, all else near zero."""
    random = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> Array:
        offset = np.float32("LayerNorm.weight" in name)
        return random.standard_normal(shape, np.float32) * np.float32(0.02) + offset

    return weights


def sentences(random: np.random.Generator, batch: int, *, length: int, vocabulary: int) -> Feed:
    """Sentences of `length` tokens without padding."""
    shape = (batch, length)
    ids = random.integers(min(1000, vocabulary // 2), vocabulary, shape)
    return {"input_ids": ids, "attention_mask": np.ones(shape, np.int64), "token_type_ids": np.zeros(shape, np.int64)}
