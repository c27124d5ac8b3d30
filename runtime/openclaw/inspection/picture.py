"""Memory over a run. Pure.

One panel for each model, on one scale: to the right the nodes in the order of execution, upwards the bytes of
intermediate tensors that live while each runs, coloured by what the node is for. Weights, which live all the time, are
told in the caption: they would dwarf the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from openclaw.inspection.anatomy import Inspection, Moment
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

_PANEL, _GAP, _TOP = 210, 74, 64
_BARS = 600


def drawn(told: Sequence[Inspection]) -> str:
    """The picture of one model or more."""
    most = max((each.live for one in told for each in one.moments), default=0)
    steps = ticks(most)
    kinds = [kind for kind in ALL_KINDS if any(each.kind == kind for one in told for each in one.moments)]
    parts = [f'<text x="{LEFT}" y="26">Bytes of intermediate tensors that live while each node runs</text>']
    parts += legend(kinds, y=46)
    top = below_legend(kinds, top=_TOP)
    for number, one in enumerate(told):
        parts += _panel(one, top=top + 40 + number * (_PANEL + _GAP), steps=steps)
    height = top + 40 + len(told) * (_PANEL + _GAP)
    return document(parts, height, label="Memory over a run")


def _panel(told: Inspection, *, top: float, steps: Sequence[int]) -> Iterator[str]:
    bottom, right = top + _PANEL, WIDTH - RIGHT
    scale = _PANEL / max(steps[-1], 1)
    yield f'<text class="name" x="{LEFT}" y="{top - 14:.0f}">{escape(told.name)}</text>'
    yield f'<text class="faint" x="{right}" y="{top - 14:.0f}" text-anchor="end">{escape(_caption(told))}</text>'
    yield from grid(steps, bottom=bottom, scale=scale)
    bars = _bars(told.moments)
    width = (right - LEFT) / max(len(bars), 1)
    for number, bar in enumerate(bars):
        height = max(bar.live * scale, 1.5)
        left = LEFT + number * width
        yield (
            f'<rect class="{colour(bar.kind)}" x="{left:.2f}" y="{bottom - height:.1f}" width="{width:.2f}" '
            f'height="{height:.1f}"><title>{escape(_hint(bar))}</title></rect>'
        )
    yield from _peak(bars, bottom=bottom, scale=scale, width=width)
    nodes = len(told.moments)
    yield f'<text class="faint" x="{LEFT}" y="{bottom + 18:.0f}">first node</text>'
    yield f'<text class="faint" x="{right}" y="{bottom + 18:.0f}" text-anchor="end">node {nodes}</text>'


def _peak(bars: Sequence[Moment], *, bottom: float, scale: float, width: float) -> Iterator[str]:
    """A line at the most that lives at once, and the name of the node that needs it."""
    if not bars:
        return
    number, bar = max(enumerate(bars), key=lambda each: each[1].live)
    at, x = bottom - bar.live * scale, LEFT + (number + 0.5) * width
    late = x > (LEFT + WIDTH - RIGHT) / 2
    anchor = ' text-anchor="end"' if late else ""
    yield f'<path class="peak" d="M{x:.1f} {bottom}V{at - 6:.1f}"/>'
    text = f"{short(bar.live)}: {bar.operator} {bar.shape}"
    yield f'<text class="faint" x="{x + (-6 if late else 6):.1f}" y="{at - 4:.1f}"{anchor}>{escape(text)}</text>'


def _bars(moments: Sequence[Moment]) -> list[Moment]:
    """At most so many: of neighbours that share a bar, the one during which most lives."""
    if len(moments) <= _BARS:
        return list(moments)
    together = groupby(enumerate(moments), key=lambda each: each[0] * _BARS // len(moments))
    return [max((moment for _, moment in some), key=lambda each: each.live) for _, some in together]


def _hint(bar: Moment) -> str:
    return f"{bar.operator} {bar.node}: {short(bar.live)} live, makes {short(bar.makes)} {bar.shape}"


def _caption(told: Inspection) -> str:
    parts = [f"{told.nodes:,} nodes", f"{short(told.weights_size)} of weights"]
    if told.activations is not None:
        parts.append(f"{short(told.activations)} of activations at most")
    return ", ".join(parts)
