"""By how much runs end later than was thought: what is kept free before a deadline."""

from __future__ import annotations

_QUANTILE = 0.9
_STEP = 0.5
_SCALE_GAIN = 0.1
_MOST_SHARE = 0.25


class Overrun:
    """The 0.9 quantile of how late runs end, tracked without keeping them.

    Each run moves the estimate up by 0.9 or down by 0.1 of a step, so that it rests where one in ten ends later. The
    step is of the size of late deviations (stochastic approximation, Robbins and Monro 1951).
    """

    __slots__ = ("_scale", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self._scale = 0.0

    def ended(self, late: float) -> None:
        """A run ended ``late`` seconds after it was thought to; negative: before."""
        self._scale += _SCALE_GAIN * (abs(late - self.seconds) - self._scale)
        up = late > self.seconds
        self.seconds = max(0.0, self.seconds + _STEP * self._scale * (_QUANTILE if up else _QUANTILE - 1))

    def ahead_of(self, deadline: float, now: float) -> float:
        """The time to aim at: before the deadline, but no more than a quarter of the time that is left to it."""
        return deadline - min(self.seconds, _MOST_SHARE * (deadline - now))
