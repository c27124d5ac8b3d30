"""What is compared: the nets, their batches, and what the engines are called. Pure."""

from __future__ import annotations

from openclaw.memory.choice import DEFAULT

CHOSEN = "chosen"
"""The same model in the memory that the optimizer chose for it."""
LOWER = "lower precision"
"""The form of the model that the optimizer keeps within its accuracy budget, in the least memory that it found."""
ENGINES = (DEFAULT, CHOSEN, LOWER)

NETS = {
    "resnet50": "ResNet50",
    "bert": "BERT-base",
    "mobilenet": "MobileNetV3",
    "unet": "U-Net",
    "inception": "Inception-like",
}
"""By the name of a family, in the order in which they are measured."""
BATCHES = (1, 16)
SITTINGS = 6
"""How often engines are opened at least: of one model in one memory some are two percent faster by chance."""
MOST_SITTINGS = 12
"""How often, as long as latency is told no better than ``WITHIN``."""
WITHIN = 1.02
"""The upper bound of a ratio of latencies through its lower one, where it is told well enough."""


def key(net: str, batch: int) -> str:
    """What a case is kept under."""
    return f"{net}-{batch}"


CASES = {key(net, batch): f"{title}, batch {batch}" for net, title in NETS.items() for batch in BATCHES}
"""What the targets are of, in words by its key."""
