"""Scales for 8 bits: pure arithmetic on arrays.

Weights are symmetric, one scale for each output. A layer's input has one scale and one zero point,

    x ~ scale * (q - zero),  q in 0..255 (or -128..127),

so a single value far out makes all others coarse. Two remedies are tried on rows of real inputs, and what loses least
of the layer's product is taken: a range that leaves the farthest values out, and smoothing (SmoothQuant, Xiao et al.
2022, arXiv 2211.10438): dividing input k by ``s_k = max|x_k|^a / max|w_k|^(1-a)`` and multiplying row k of the weights
by it changes nothing in exact arithmetic, and moves the spread from the input, which has one scale, to the weights,
which have many.

What rounding adds to the product on average is known from the same rows, and is taken off the bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

CLIPS = (1.0, 0.85, 0.7, 0.55, 0.4)
ALPHAS = (0.5, 0.65, 0.8)
WORTHWHILE = 0.7
"""Smoothing costs a multiplication of the input, so it must take off at least this share's rest of the loss."""


@dataclass(frozen=True)
class Observed:
    """What a layer's input was on the calibration data.

    Attributes:
        lows: the least value of every column.
        highs: the greatest of every column.
        rows: some of its rows, among them those that reach farthest out.
    """

    lows: Floats
    highs: Floats
    rows: Floats

    @property
    def peaks(self) -> Floats:
        """The largest magnitude of every column."""
        return np.maximum(np.abs(self.lows), np.abs(self.highs))


@dataclass(frozen=True)
class Choice:
    """How a layer's input is rounded.

    Attributes:
        scale: a step.
        zero: the number that stands for 0.
        smooth: what every column is divided by, or None.
        loss: the share of a row's energy that the product loses by rounding, on average over the observed rows.
    """

    scale: np.float32
    zero: int
    smooth: Floats | None
    loss: float


def round_weight(weight: Floats, limit: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """Weights [inputs, outputs] as whole numbers up to ``limit``, and the scale of every output."""
    peaks = np.abs(weight).max(axis=0, initial=0.0)
    # A column of zeros, or of numbers so small that the scale would be 0, keeps a scale that is harmless.
    scales = np.where(peaks > 1e-30, peaks / limit, np.float32(1.0)).astype(np.float32)
    return np.clip(np.rint(weight / scales), -limit, limit).astype(np.int8), scales


def input_scale(low: float, high: float, *, signed: bool) -> tuple[np.float32, int]:
    """Scale and zero point of 8 bits over ``low``..``high``, which are widened to hold 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / 255)
    if not np.isfinite(scale) or scale < np.finfo(np.float32).tiny:
        scale = np.float32(1.0)
    least = -128 if signed else 0
    return scale, int(np.clip(np.rint(least - low / scale), least, least + 255))


def round_input(x: Floats, choice: Choice, *, signed: bool) -> Floats:
    """What a layer sees of its input."""
    smooth = x if choice.smooth is None else x / choice.smooth
    least = -128 if signed else 0
    whole = np.clip(np.rint(smooth / choice.scale) + choice.zero, least, least + 255)
    return np.asarray((whole - choice.zero) * choice.scale, np.float32)


def smoothing(peaks: Floats, weight: Floats, alpha: float) -> Floats:
    """What to divide every column of the input by; 1 on geometric average."""
    inputs = np.maximum(peaks, 1e-5 * max(float(peaks.max(initial=0.0)), 1e-5))
    outputs = np.abs(weight).max(axis=1)
    outputs = np.maximum(outputs, 1e-5 * max(float(outputs.max(initial=0.0)), 1e-5))
    logarithm = alpha * np.log(inputs) - (1 - alpha) * np.log(outputs)
    return np.asarray(np.exp(logarithm - logarithm.mean()), np.float32)


def choose(
    observed: Observed, weight: Floats, *, limit: int, signed: bool = False, smooth: bool = False, clip: bool = True
) -> Choice:
    """The scale, zero point and smoothing that lose least of ``rows @ weight``.

    Args:
        observed: of the input.
        weight: [inputs, outputs].
        limit: the largest magnitude of a rounded weight.
        signed: whether inputs are rounded to INT8 rather than UINT8.
        smooth: whether smoothing may be used; it is where it takes off enough.
        clip: whether the range may leave values out.
    """
    exact = observed.rows @ weight
    best: Choice | None = None
    for alpha in (None, *(ALPHAS if smooth else ())):
        divisor = None if alpha is None else smoothing(observed.peaks, weight, alpha)
        found = _best_range(observed, weight, exact, divisor=divisor, limit=limit, signed=signed, clip=clip)
        if best is None or found.loss < best.loss * (WORTHWHILE if best.smooth is None else 1.0):
            best = found
    assert best is not None
    return best


def _best_range(
    observed: Observed,
    weight: Floats,
    exact: Floats,
    *,
    divisor: Floats | None,
    limit: int,
    signed: bool,
    clip: bool,
) -> Choice:
    columns = np.float32(1.0) if divisor is None else divisor
    low, high = float((observed.lows / columns).min()), float((observed.highs / columns).max())
    rows = observed.rows
    if divisor is not None:
        weight = weight * divisor[:, None]
    whole, scales = round_weight(weight, limit)
    rounded = whole * scales
    best: Choice | None = None
    for share in CLIPS if clip else CLIPS[:1]:
        scale, zero = input_scale(low * share, high * share, signed=signed)
        choice = Choice(scale, zero, divisor, 0.0)
        error = round_input(rows, choice, signed=signed) @ rounded - exact
        # A constant error costs nothing: it is taken off the bias.
        loss = _share(error - error.mean(axis=0), exact)
        if best is None or loss < best.loss:
            best = Choice(scale, zero, divisor, loss)
    assert best is not None
    return best


def _share(error: Floats, exact: Floats) -> float:
    """The share of its energy that a row loses, on average.

    Rows count alike, because what follows a layer mostly normalizes rows; a few rows of huge numbers, which
    transformers have, would hide all others. What is nearly zero is not worth being exact.
    """
    energy = np.square(exact).mean(axis=1)
    floor = max(0.1 * float(np.median(energy)), 1e-30)
    return float((np.square(error).mean(axis=1) / np.maximum(energy, floor)).mean())


def bias_correction(rows: Floats, weight: Floats, choice: Choice, *, limit: int, signed: bool) -> Floats:
    """What rounding adds to every output on average."""
    scaled = weight if choice.smooth is None else weight * choice.smooth[:, None]
    whole, scales = round_weight(scaled, limit)
    error = round_input(rows, choice, signed=signed) @ (whole * scales) - rows @ weight
    return np.asarray(error.mean(axis=0), np.float32)
