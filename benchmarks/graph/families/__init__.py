"""The models that the optimizer is measured on, drawn by this code: one file a family."""

from __future__ import annotations

from benchmarks.graph.families.bert import BERT
from benchmarks.graph.families.digits import DIGITS
from benchmarks.graph.families.family import Family
from benchmarks.graph.families.gpt2 import GPT2
from benchmarks.graph.families.inception import INCEPTION
from benchmarks.graph.families.lstm import LSTM
from benchmarks.graph.families.minilm import MINILM
from benchmarks.graph.families.mobilenet import MOBILENET
from benchmarks.graph.families.resnet50 import RESNET50
from benchmarks.graph.families.unet import UNET
from benchmarks.graph.families.vit import VIT
from benchmarks.graph.families.yolo import YOLO

FAMILIES: tuple[Family, ...] = (
    RESNET50,
    BERT,
    MINILM,
    DIGITS,
    MOBILENET,
    YOLO,
    UNET,
    VIT,
    GPT2,
    LSTM,
    INCEPTION,
)
"""All, those that targets are set for first."""

__all__ = ["FAMILIES", "Family"]
