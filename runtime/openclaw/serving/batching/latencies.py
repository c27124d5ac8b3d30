"""What is known of a model's latency by shape and batch size: measured at load, corrected by every real run."""

from __future__ import annotations

from bisect import bisect_left

from openclaw.serving.batching.layout import Form, Shape
from openclaw.serving.batching.profile import Profile, guessed, mixed

MAX_SHAPES = 256
"""Shapes beyond those measured at load that are remembered."""

MIX_EVERY = 16
"""Runs after which the profiles of lengths between those measured are mixed anew, or one run that is far off."""


class Latencies:
    """Profiles by shape; those of sequences stand at a few lengths, and are mixed for the lengths between."""

    def __init__(self, profiles: dict[int, Profile], *, largest: int) -> None:
        """Args: ``profiles`` by length (0: none) as measured at load; ``largest`` batch in rows."""
        self._largest = largest
        self._lengths = sorted(length for length in profiles if length)
        self._by_length = dict(profiles)
        self._by_shape: dict[Shape | None, Profile] = {}
        if largest == 1 and 0 in profiles:
            # Nothing is batched, and so every request has the form that runs alone.
            self._by_shape[None] = profiles[0]
        self._between: dict[int, Profile] = {}
        self._unmixed = 0

    def profile(self, form: Form) -> Profile:
        """What is known about requests of this form."""
        if form.length:
            return self._by_length.get(form.length) or self._mixed(form.length)
        if form.shape == () and (known := self._by_length.get(0)):
            return known
        return self._by_shape.get(form.shape) or self._guess(form.shape)

    def observe(self, form: Form, rows: int, *, seconds: float) -> None:
        """A run of ``rows`` rows of this form took so long."""
        if form.length:
            self._observe_length(form.length, rows, seconds=seconds)
        elif form.shape == () and 0 in self._by_length:
            self._by_length[0] = self._by_length[0].observed(rows, seconds)
        else:
            # Last in: what is used again stays.
            profile = self._by_shape.pop(form.shape, None) or self._guess(form.shape)
            self._by_shape[form.shape] = profile.observed(rows, seconds)
            if len(self._by_shape) > MAX_SHAPES:
                del self._by_shape[next(iter(self._by_shape))]

    def _observe_length(self, length: int, rows: int, *, seconds: float) -> None:
        expected = self.profile(Form(rows, (), length)).latency(rows)
        ratio = seconds / expected if expected else 1.0
        for near, share in self._around(length):
            profile = self._by_length[near]
            here = profile.latency(rows) * ratio if expected else seconds
            self._by_length[near] = profile.observed(rows, here, weight=share)
        # Mixing anew for each run, for each length that waits, would cost more than it tells.
        self._unmixed += 1
        if self._unmixed >= MIX_EVERY or not 0.5 < ratio < 2.0:
            self._between.clear()
            self._unmixed = 0

    def _mixed(self, length: int) -> Profile:
        profile = self._between.get(length)
        if profile is None:
            profile = self._between[length] = self._between_measured(length)
        return profile

    def _between_measured(self, length: int) -> Profile:
        near = self._around(length)
        if len(near) == 2:
            return mixed(self._by_length[near[0][0]], self._by_length[near[1][0]], share=near[1][1])
        nearest = self._by_length[near[0][0]] if near else guessed(self._largest)
        longest = near[0][0] if near else length
        return nearest.scaled(length / longest) if length > longest else nearest

    def _around(self, length: int) -> list[tuple[int, float]]:
        """The lengths that were measured next to this one, with the share of each."""
        lengths = self._lengths
        right = bisect_left(lengths, length)
        if right == len(lengths):
            return [(lengths[-1], 1.0)] if lengths else []
        if right == 0 or lengths[right] == length:
            return [(lengths[right], 1.0)]
        share = (length - lengths[right - 1]) / (lengths[right] - lengths[right - 1])
        return [(lengths[right - 1], 1 - share), (lengths[right], share)]

    def _guess(self, shape: Shape | None) -> Profile:
        if shape is None:
            return guessed(1)
        # Another shape is no measurement of this one, but better than nothing.
        other = self._by_length.get(0)
        return guessed(self._largest, other.latency(1)) if other else guessed(self._largest)
