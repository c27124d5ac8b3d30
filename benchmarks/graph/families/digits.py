"""A small convolutional network that is trained here, on scikit-learn's handwritten digits: 8 x 8 pixels, 0 to 16.

The data are of the UCI repository ("Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, 1998).
Training is plain numpy: three convolutions, Adam, cross entropy. Weights are kept in the cache folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from benchmarks.graph.environment import HOME
from benchmarks.graph.families.drawing import Drawing, Feed
from benchmarks.graph.families.family import Family, Labels

Floats = npt.NDArray[np.float32]

HELD_OUT = 500
_BRIGHTEST = 16.0
_REVISION = 1  # of what is trained: weights of another one are not used


@dataclass(frozen=True, slots=True)
class Recipe:
    """How it is trained: channels of the three convolutions, and times that all pictures are seen."""

    widths: tuple[int, int, int]
    epochs: int
    rate: float = 2e-3
    batch: int = 64


WHOLE, SMALL = Recipe((64, 128, 256), epochs=14), Recipe((8, 8, 16), epochs=10, rate=1e-2)


@dataclass(frozen=True, slots=True)
class Digits:
    """Pictures [n, 8, 8] and what they show, for training and never trained on."""

    pictures: Floats
    answers: npt.NDArray[np.int64]
    held_out: Floats
    held_out_answers: npt.NDArray[np.int64]


def data() -> Digits:
    """The digits, split the same way every time."""
    from sklearn.datasets import load_digits

    every = load_digits()
    order = np.random.default_rng(11).permutation(len(every.target))
    pictures, answers = every.images.astype(np.float32)[order], every.target.astype(np.int64)[order]
    return Digits(pictures[HELD_OUT:], answers[HELD_OUT:], pictures[:HELD_OUT], answers[:HELD_OUT])


def columns(x: Floats) -> Floats:
    """[N, H, W, C] to rows of each pixel's 3 x 3 surroundings: [N * H * W, 9 * C]."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3)).reshape(-1, 9 * x.shape[3])


@dataclass(frozen=True, slots=True)
class _Forward:
    """What the way back needs of the way there.

    Attributes:
        patches: of each convolution, its input's surroundings.
        answers: of each convolution, after ReLU.
        chosen: 1 where the pooling took the pixel.
        mean: over all pixels of the last one.
    """

    patches: list[Floats]
    answers: list[Floats]
    chosen: Floats
    mean: Floats


class Network:
    """Three 3 x 3 convolutions with ReLU, the second with 2 x 2 max pooling, a mean, and a linear layer."""

    def __init__(self, recipe: Recipe, *, seed: int = 0) -> None:
        random, before = np.random.default_rng(seed), 1
        self.weights: list[Floats] = []
        for after in recipe.widths:
            drawn = random.standard_normal((9 * before, after), np.float32) * np.float32((2 / (9 * before)) ** 0.5)
            self.weights += [drawn, np.zeros(after, np.float32)]
            before = after
        last = random.standard_normal((before, 10), np.float32) * np.float32(before**-0.5)
        self.weights += [last, np.zeros(10, np.float32)]

    def scores(self, pictures: Floats) -> Floats:
        """[N, 10], before the softmax."""
        return self._scores(self._forward(pictures))

    def gradients(self, pictures: Floats, answers: npt.NDArray[np.int64]) -> list[Floats]:
        """Of the mean cross entropy, one for each weight."""
        way = self._forward(pictures)
        up = softmax(self._scores(way))
        up[np.arange(len(answers)), answers] -= 1
        up /= len(answers)
        found = [way.mean.T @ up, up.sum(axis=0)]
        last = way.answers[2]
        up = np.broadcast_to((up @ self.weights[6].T)[:, None, None] / (last.shape[1] * last.shape[2]), last.shape)
        for layer in (2, 1, 0):
            if layer == 1:
                up = way.chosen * _doubled(up)
            up = up * (way.answers[layer] > 0)
            flat = up.reshape(-1, up.shape[3])
            found = [way.patches[layer].T @ flat, flat.sum(axis=0), *found]
            if layer:
                up = self._back(up, layer)
        return found

    def _forward(self, pictures: Floats) -> _Forward:
        x = (pictures / np.float32(_BRIGHTEST))[..., None]
        patches, answers, chosen = [], [], x
        for layer in range(3):
            weights, bias = self.weights[2 * layer : 2 * layer + 2]
            patches.append(columns(x))
            x = np.maximum(patches[-1] @ weights + bias, 0).reshape(*x.shape[:3], -1)
            answers.append(x)
            if layer == 1:
                count, high, wide, channels = x.shape
                best = x.reshape(count, high // 2, 2, wide // 2, 2, channels).max(axis=(2, 4))
                chosen = (x == _doubled(best)).astype(np.float32)
                x = best
        return _Forward(patches, answers, chosen, x.mean(axis=(1, 2)))

    def _scores(self, way: _Forward) -> Floats:
        return way.mean @ self.weights[6] + self.weights[7]

    def _back(self, up: Floats, layer: int) -> Floats:
        """Through a convolution: one with the kernel turned around, and its channels exchanged."""
        after = up.shape[3]
        turned = self.weights[2 * layer].reshape(3, 3, -1, after)[::-1, ::-1].transpose(0, 1, 3, 2)
        back = columns(up) @ turned.reshape(9 * after, -1)
        return back.reshape(*up.shape[:3], -1)


def _doubled(x: Floats) -> Floats:
    return x.repeat(2, axis=1).repeat(2, axis=2)


def softmax(scores: Floats) -> Floats:
    """Along the last axis."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)


def trained(recipe: Recipe) -> Network:
    """A network after all epochs; the same in every run on one machine."""
    from threadpoolctl import threadpool_limits

    network, digits, random = Network(recipe), data(), np.random.default_rng(1)
    first = [np.zeros_like(each) for each in network.weights]
    second = [np.zeros_like(each) for each in network.weights]
    step, steps = 0, recipe.epochs * (len(digits.answers) // recipe.batch)
    with threadpool_limits(1):
        for _ in range(recipe.epochs):
            order = random.permutation(len(digits.answers))
            for at in range(0, len(order) - recipe.batch + 1, recipe.batch):
                some, step = order[at : at + recipe.batch], step + 1
                rate = recipe.rate * (1 - step / (steps + 1))
                gradients = network.gradients(digits.pictures[some], digits.answers[some])
                for number, gradient in enumerate(gradients):
                    first[number] += 0.1 * (gradient - first[number])
                    second[number] += 0.001 * (gradient**2 - second[number])
                    scale = rate * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
                    network.weights[number] -= scale * first[number] / (np.sqrt(second[number]) + 1e-8)
    return network


def _kept(recipe: Recipe) -> Network:
    """Trained now, or before."""
    name = "-".join(str(each) for each in (_REVISION, *recipe.widths, recipe.epochs))
    file = HOME / "models" / f"digits-{name}.npz"
    if file.exists():
        network = Network(recipe)
        with np.load(file) as stored:
            network.weights = [stored[key] for key in stored.files]
        return network
    network = trained(recipe)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, *network.weights)
    partial.rename(file)
    return network


def exported(network: Network) -> onnx.ModelProto:
    """The network as ONNX; pictures come as they are, brightness 0 to 16."""
    drawing = Drawing()
    x = drawing.add("Div", "image", drawing.constant(_BRIGHTEST))
    x = drawing.add("Unsqueeze", x, drawing.integers(1))
    for layer in range(3):
        weights, bias = network.weights[2 * layer : 2 * layer + 2]
        kernel = weights.reshape(3, 3, -1, weights.shape[1]).transpose(3, 2, 0, 1)
        x = drawing.add("Conv", x, drawing.constant(kernel), drawing.constant(bias), kernel_shape=[3, 3], pads=[1] * 4)
        x = drawing.add("Relu", x)
        if layer == 1:
            x = drawing.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = drawing.add("Flatten", drawing.add("GlobalAveragePool", x))
    weights, bias = network.weights[6:]
    scores = drawing.add("Gemm", x, drawing.constant(weights.T), drawing.constant(bias), transB=1)
    drawing.name(drawing.add("Softmax", scores, axis=1), "probabilities")
    inputs: dict[str, Any] = {"image": (np.float32, ("N", 8, 8))}
    return drawing.model("digits", inputs=inputs, outputs={"probabilities": ("N", 10)})


def _draw(small: bool) -> onnx.ModelProto:
    return exported(_kept(SMALL if small else WHOLE))


def _feed(random: np.random.Generator, batch: int, small: bool) -> Feed:
    pictures = data().held_out
    return {"image": pictures[random.integers(0, len(pictures), batch)]}


def _calibration(small: bool) -> tuple[Sequence[Feed], Sequence[Feed]]:
    digits = data()
    return [{"image": digits.pictures}], [{"image": digits.held_out}]


def _labels() -> Labels:
    digits = data()
    return {"image": digits.held_out}, digits.held_out_answers


DIGITS = Family(
    "digits", "Digits CNN", _draw, _feed, "top1", batches=(1, 16), real=True, calibration=_calibration, labels=_labels
)
