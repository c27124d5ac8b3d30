"""BERT-base, as transformers' models are exported without any help: no fused attention, normalization or GELU."""

from __future__ import annotations

import numpy as np
import onnx
from benchmarks.graph.families.drawing import Drawing, Feed, Shape
from benchmarks.graph.families.encoder import Bert, drawn, sentences
from benchmarks.graph.families.family import Family, Transformer

TOKENS = ("input_ids", "attention_mask", "token_type_ids")
_VOCABULARY, _SMALL_VOCABULARY = 30_522, 100


def _draw(small: bool) -> onnx.ModelProto:
    drawing = Drawing()
    if small:
        encoder = Bert(drawing, drawn(), layers=2, width=32, heads=4, inner=64, vocabulary=_SMALL_VOCABULARY)
    else:
        encoder = Bert(drawing, drawn(), layers=12, width=768, heads=12, inner=3072, vocabulary=_VOCABULARY)
    drawing.name(encoder.draw(), "last_hidden_state")
    shape: Shape = ("N", "S")
    inputs = dict.fromkeys(TOKENS, (np.int64, shape))
    return drawing.model("bert", inputs=inputs, outputs={"last_hidden_state": (*shape, encoder.width)})


def _feed(random: np.random.Generator, batch: int, small: bool) -> Feed:
    length, vocabulary = (16, _SMALL_VOCABULARY) if small else (128, _VOCABULARY)
    return sentences(random, batch, length=length, vocabulary=vocabulary)


BERT = Family(
    "bert",
    "BERT-base, 128 tokens",
    _draw,
    _feed,
    "cosine",
    batches=(1, 16),
    transformer=Transformer("bert", (12, 768), (4, 32)),
)
