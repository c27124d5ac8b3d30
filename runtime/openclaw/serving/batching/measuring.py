"""What is learned of a model at load: whether it can be batched, and how long batches take."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product, takewhile
from statistics import median

from openclaw.errors import RequestError
from openclaw.execute.session import Array
from openclaw.graph.signature import Signature
from openclaw.serving.batching.layout import SEQUENCE_AXIS, Layout, Sequences, find_mask, read_layout
from openclaw.serving.batching.probing import Probe, Run
from openclaw.serving.batching.profile import Point, Profile, batch_sizes, extended, guessed
from openclaw.serving.batching.room import Room
from openclaw.serving.batching.settings import BatchingSettings
from openclaw.serving.batching.verifying import find_sequences, rows_differ

log = logging.getLogger(__name__)

BUDGET_SECONDS = 2.0

LENGTHS = (8, 16, 32, 64, 128, 256, 512)
"""Of sequences: between two of them the latency is taken to be linear."""

_SIZES = (8, 32, 1, 64, 224)
"""What free dimensions are tried with, until the model takes one."""
_ROUNDS = 5
_FIRST_ROUND = 0.4
"""Share of the time for running every cell once; the rest is for doing so again."""

Cell = tuple[int, int]
"""Rows and length."""


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """What was learned of a model.

    Attributes:
        layout: how its requests are laid together; None: every request runs alone, for ``reason``.
        profiles: by length, and at 0 where length does not matter. Other shapes are learned from real requests.
        reason: in words, whether and why requests are batched.
        padding: in words, whether sequences of different lengths share a run; empty for models without.
        most: rows that there surely is memory for at once; None: for all that may share a run.
        room: what tells it for a request that has more rows than ever share a run.
    """

    layout: Layout | None
    profiles: dict[int, Profile] = field(default_factory=dict)
    reason: str = ""
    padding: str = ""
    most: int | None = None
    room: Room = field(default_factory=Room)

    @property
    def profile(self) -> Profile:
        """Of the shortest shape that was measured."""
        return self.profiles[min(self.profiles)]


def unmeasured() -> ModelProfile:
    """Of a model that nothing is known about yet: its requests run one by one."""
    return ModelProfile(None, {0: guessed(1)}, "batching is off: the model was not measured yet", most=1)


def profile_model(
    run: Run,
    signature: Signature,
    *,
    settings: BatchingSettings,
    budget: float = BUDGET_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
    room: Room | None = None,
) -> ModelProfile:
    """Verifies and measures a model, on this thread.

    Args:
        run: blocking inference.
        signature: of the model.
        settings: the largest batch, and whether to fill sequences up.
        budget: seconds that measuring may take; a single run that is longer still ends.
        clock: seconds.
        room: memory for larger batches; None: there is enough.
    """
    timer = _Timer(clock, clock() + budget, room or Room())
    measured = _profile(run, signature, settings=settings, timer=timer)
    log.info("%s%s", measured.reason, f"; {measured.padding}" if measured.padding else "")
    return measured


def _profile(run: Run, signature: Signature, *, settings: BatchingSettings, timer: _Timer) -> ModelProfile:
    layout = read_layout(signature)
    mask = find_mask(signature, settings.mask) if isinstance(layout, Layout) else None
    probe = _working_probe(run, signature, mask)
    if probe is None:
        reason = "batching is off: the model took no made-up input to be measured with"
        return ModelProfile(None, {0: guessed(1)}, reason, most=1)
    why_not = layout if isinstance(layout, str) else None
    if settings.max_batch_size == 1:
        why_not = "max_batch_size is 1"
    if isinstance(layout, Layout) and why_not is None:
        why_not = rows_differ(probe, layout)
    if why_not is not None or isinstance(layout, str):
        alone = timer.profiles(probe, [1], lengths=[0])
        most = None if alone and timer.room.fits(2) else 1
        return ModelProfile(None, alone or {0: guessed(1)}, f"batching is off: {why_not}", most=most)
    layout, padding = _with_sequences(probe, layout, settings)
    lengths = LENGTHS if layout.sequences is not None else (0,)
    profiles = timer.profiles(probe, batch_sizes(settings.max_batch_size), lengths=lengths)
    if not profiles:
        return ModelProfile(None, {0: guessed(1)}, "batching is off: the model failed while it was measured", most=1)
    reason = _reason(profiles)
    if timer.most is not None:
        reason += f"; there is no memory to run more than {timer.most} at once"
    return ModelProfile(layout, profiles, reason, padding, timer.most, timer.room)


def _working_probe(run: Run, signature: Signature, mask: str | None) -> Probe | None:
    for size in _SIZES:
        probe = Probe(run, signature, size, mask)
        try:
            probe.outputs(probe.inputs(1))
        except RequestError:
            continue
        return probe
    return None


def _with_sequences(probe: Probe, layout: Layout, settings: BatchingSettings) -> tuple[Layout, str]:
    if not any(-1 in spec.shape[SEQUENCE_AXIS:] for spec in probe.signature.inputs):
        return layout, ""
    if settings.padding == "never":
        return layout, "only equal shapes share a run: padding is never"
    if probe.mask is None:
        return layout, "only equal shapes share a run: there is no mask input"
    found = find_sequences(probe, layout, mask=probe.mask)
    if not isinstance(found, Sequences):
        return layout, f"only equal lengths share a run: {found}"
    return Layout(layout.inputs, layout.fixed, found), f"different lengths share a run: {probe.mask!r} hides the rest"


def _reason(profiles: dict[int, Profile]) -> str:
    paying = {length: profile for length, profile in profiles.items() if profile.pays}
    length = min(paying or profiles)
    where = f", for sequences of {length}" if length else ""
    return f"{profiles[length].reason}{where}"


@dataclass(slots=True)
class _Timer:
    clock: Callable[[], float]
    until: float
    room: Room
    most: int | None = None

    def profiles(self, probe: Probe, sizes: list[int], *, lengths: Sequence[int]) -> dict[int, Profile]:
        """Profiles by length; the cheapest cells first, as far as time reaches, the others derived from them."""
        inputs: dict[Cell, dict[str, Array]] = {}
        times: dict[Cell, list[float]] = {}
        begun = self.clock()
        for cell in sorted(product(sizes, lengths), key=lambda cell: (_tokens(cell), cell[0])):
            spent = self.clock() - begun
            if times and spent + 2 * self._expected(times, cell) > _FIRST_ROUND * (self.until - begun):
                break
            if cell[0] > 1 and not self.room.fits(_tokens(cell)):
                # The last one that ran was nearly as large, if not always of as many rows.
                self.most = max(inputs, key=_tokens, default=(1, 0))[0]
                break
            before = self.room.left()
            arrays = probe.inputs(cell[0], length=cell[1] or None)
            try:
                probe.outputs(arrays)
                times[cell] = [self._time(probe, arrays)]
            except RequestError:
                continue
            inputs[cell] = arrays
            self.room.took(_tokens(cell), before=before)
        # Interleaved, so that a slow moment of the machine does not fall on one batch size alone.
        for _ in range(_ROUNDS - 1):
            for cell, arrays in inputs.items():
                if self.clock() + times[cell][0] < self.until:
                    # Requests will be told why it fails now and then; what is known of its latency stands.
                    with suppress(RequestError):
                        times[cell].append(self._time(probe, arrays))
        return _tables(times, [rows for rows in sizes if rows <= (self.most or rows)], lengths=lengths)

    def _time(self, probe: Probe, arrays: dict[str, Array]) -> float:
        start = self.clock()
        probe.outputs(arrays)
        return self.clock() - start

    def _expected(self, times: dict[Cell, list[float]], cell: Cell) -> float:
        largest = max(times, key=_tokens)
        return times[largest][0] * _tokens(cell) / _tokens(largest)


def _tokens(cell: Cell) -> int:
    return cell[0] * max(cell[1], 1)


def _tables(times: dict[Cell, list[float]], sizes: list[int], *, lengths: Sequence[int]) -> dict[int, Profile]:
    """Profiles by length. A length that never ran is taken to cost what as many elements cost in a batch that did."""
    if not times:
        return {}
    largest = max(times, key=_tokens)
    element = median(times[largest]) / _tokens(largest)
    profiles = {}
    for length in lengths:
        cells = takewhile(times.__contains__, ((rows, length) for rows in sizes))
        points = [Point(rows, median(times[rows, length]), len(times[rows, length])) for rows, length in cells]
        profiles[length] = extended(points, sizes[-1]) if points else guessed(sizes[-1], element * max(length, 1))
    return profiles
