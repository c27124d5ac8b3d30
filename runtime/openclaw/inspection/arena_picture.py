"""A plan drawn: to the right the nodes in the order of execution, upwards the arena, each buffer a rectangle. Pure.

One panel for each model, on one scale of bytes. A rectangle has the colour of the kind of node that makes its first
tensor; what is empty below the lower bound's line is lost to fragmentation, or free at that time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from openclaw.inspection.canvas import (
    ALL_KINDS,
    LEFT,
    RIGHT,
    WIDTH,
    below_legend,
    colour,
    document,
    grid,
    legend,
    short,
    ticks,
)
from openclaw.inspection.memory import MemoryPlan, Place

_PANEL, _GAP, _TOP = 340, 80, 64
_LABEL = 150  # pixels that a rectangle is wide at least if its name is written into it
_LETTER = 6.6  # pixels that a letter of that name takes, at most


def drawn(told: Sequence[MemoryPlan]) -> str:
    """The picture of one plan or more."""
    steps = ticks(max((each.plan.arena_bytes for each in told), default=0))
    made = {each.nodes[place.first].kind for each in told for place in each.places}
    kinds = [kind for kind in ALL_KINDS if kind in made]
    parts = [f'<text x="{LEFT}" y="26">Where each tensor lies in the arena, and while which nodes run</text>']
    parts += legend(kinds, y=46)
    top = below_legend(kinds, top=_TOP)
    for number, one in enumerate(told):
        parts += _panel(one, top=top + 40 + number * (_PANEL + _GAP), steps=steps)
    return document(parts, top + 40 + len(told) * (_PANEL + _GAP), label="The plan of the memory")


def _panel(told: MemoryPlan, *, top: float, steps: Sequence[int]) -> Iterator[str]:
    bottom, right, plan = top + _PANEL, WIDTH - RIGHT, told.plan
    scale = _PANEL / max(steps[-1], 1)
    width = (right - LEFT) / max(len(told.nodes), 1)
    yield f'<text class="name" x="{LEFT}" y="{top - 14:.0f}">{escape(told.name)}</text>'
    yield f'<text class="faint" x="{right}" y="{top - 14:.0f}" text-anchor="end">{escape(_caption(told))}</text>'
    yield from grid(steps, bottom=bottom, scale=scale)
    for place in told.places:
        if place.bytes:
            yield from _block(place, told, bottom=bottom, scale=scale, width=width)
    at = bottom - plan.lower_bound_bytes * scale
    yield f'<path class="bound" d="M{LEFT} {at:.1f}H{right}"><title>lower bound</title></path>'
    yield f'<text class="faint" x="{LEFT}" y="{bottom + 18:.0f}">first node</text>'
    middle = (LEFT + right) / 2
    yield f'<path class="bound" d="M{middle - 60:.0f} {bottom + 14:.0f}h24"/>'
    yield f'<text class="faint" x="{middle - 30:.0f}" y="{bottom + 18:.0f}">lower bound</text>'
    yield f'<text class="faint" x="{right}" y="{bottom + 18:.0f}" text-anchor="end">node {len(told.nodes)}</text>'


def _block(place: Place, told: MemoryPlan, *, bottom: float, scale: float, width: float) -> Iterator[str]:
    left, wide = LEFT + place.first * width, (place.last + 1 - place.first) * width
    high = place.bytes * scale
    y = bottom - place.offset * scale - high
    maker = told.nodes[place.first]
    hint = f"{place.name}: {short(place.bytes)} at {place.offset:,}, nodes {place.first + 1} to {place.last + 1}"
    if place.shares:
        hint += f"; shared with {', '.join(place.shares[:5])}{' ...' if len(place.shares) > 5 else ''}"
    yield (
        f'<rect class="block {colour(maker.kind)}" x="{left:.2f}" y="{y:.2f}" width="{max(wide, 0.5):.2f}" '
        f'height="{max(high, 0.5):.2f}"><title>{escape(f"{maker.operator} {hint}")}</title></rect>'
    )
    if wide >= _LABEL and high >= 16:
        room = int(wide / _LETTER)
        text = f"{short(place.bytes)} {place.name}"
        text = text if len(text) <= room else f"{text[: room - 3]}..."
        yield f'<text class="label" x="{left + 5:.1f}" y="{y + high / 2 + 4:.1f}">{escape(text)}</text>'


def _caption(told: MemoryPlan) -> str:
    plan = told.plan
    return (
        f"arena {short(plan.arena_bytes)}, lower bound {short(plan.lower_bound_bytes)}, "
        f"fragmentation {plan.fragmentation:.2%}, {short(plan.total_bytes)} without reuse"
    )
