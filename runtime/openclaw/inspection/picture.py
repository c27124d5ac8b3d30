"""Memory over a run as an SVG that follows the reader's light or dark theme. Pure.

One panel for each model, on one scale: to the right the nodes in the order of execution, upwards the bytes of
intermediate tensors that live while each runs, coloured by what the node is for. Weights, which live all the time, are
told in the caption: they would dwarf the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from openclaw.inspection.anatomy import Inspection, Moment
from openclaw.inspection.operators import ARITHMETIC, KINDS

_WIDTH, _LEFT, _RIGHT = 960, 76, 20
_PANEL, _GAP, _TOP = 210, 74, 64
_LEGEND = 4  # kinds in a row
_BARS = 600
_KINDS = (*KINDS, ARITHMETIC)
_STYLE = """
  svg { color-scheme: light dark; font: 13px system-ui, sans-serif; }
  .ground { fill: #ffffff; } text { fill: #24292f; } .faint { fill: #57606a; font-size: 12px; }
  .grid { stroke: #d8dee4; stroke-width: 1; } .peak { stroke: #24292f; stroke-dasharray: 4 3; }
  .name { font-weight: 600; font-size: 15px; }
  .k0 { fill: #0969da; } .k1 { fill: #8250df; } .k2 { fill: #bf3989; } .k3 { fill: #0598bc; } .k4 { fill: #1a7f37; }
  .k5 { fill: #bc4c00; } .k6 { fill: #4d8f8b; } .k7 { fill: #9a9fa6; } .k8 { fill: #c9cdd2; } .k9 { fill: #d4a72c; }
  .k10 { fill: #cf222e; } .k11 { fill: #7d6b58; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; } text { fill: #e6edf3; } .faint { fill: #9198a1; } .grid { stroke: #30363d; }
    .peak { stroke: #e6edf3; }
    .k0 { fill: #58a6ff; } .k1 { fill: #bc8cff; } .k2 { fill: #f778ba; } .k3 { fill: #39c5cf; } .k4 { fill: #3fb950; }
    .k5 { fill: #f0883e; } .k6 { fill: #76c7c0; } .k7 { fill: #8b949e; } .k8 { fill: #484f58; } .k9 { fill: #e3b341; }
    .k10 { fill: #ff7b72; } .k11 { fill: #b59e86; }
  }
"""
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


def drawn(told: Sequence[Inspection]) -> str:
    """The picture of one model or more."""
    most = max((each.live for one in told for each in one.moments), default=0)
    steps = _ticks(most)
    kinds = [kind for kind in _KINDS if any(each.kind == kind for one in told for each in one.moments)]
    parts = [f'<text x="{_LEFT}" y="26">Bytes of intermediate tensors that live while each node runs</text>']
    parts += _legend(kinds, y=46)
    top = _TOP + 20 * ((len(kinds) - 1) // _LEGEND)
    for number, one in enumerate(told):
        parts += _panel(one, top=top + 40 + number * (_PANEL + _GAP), steps=steps)
    height = top + 40 + len(told) * (_PANEL + _GAP)
    return _document(parts, height)


def _panel(told: Inspection, *, top: float, steps: Sequence[int]) -> Iterator[str]:
    bottom, right = top + _PANEL, _WIDTH - _RIGHT
    scale = _PANEL / max(steps[-1], 1)
    yield f'<text class="name" x="{_LEFT}" y="{top - 14:.0f}">{escape(told.name)}</text>'
    yield f'<text class="faint" x="{right}" y="{top - 14:.0f}" text-anchor="end">{escape(_caption(told))}</text>'
    for step in steps:
        at = bottom - step * scale
        yield f'<path class="grid" d="M{_LEFT} {at:.1f}H{right}"/>'
        yield f'<text class="faint" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{_size(step)}</text>'
    bars = _bars(told.moments)
    width = (right - _LEFT) / max(len(bars), 1)
    for number, bar in enumerate(bars):
        height = max(bar.live * scale, 1.5)
        left = _LEFT + number * width
        yield (
            f'<rect class="k{_KINDS.index(bar.kind)}" x="{left:.2f}" y="{bottom - height:.1f}" width="{width:.2f}" '
            f'height="{height:.1f}"><title>{escape(_hint(bar))}</title></rect>'
        )
    yield from _peak(bars, bottom=bottom, scale=scale, width=width)
    nodes = len(told.moments)
    yield f'<text class="faint" x="{_LEFT}" y="{bottom + 18:.0f}">first node</text>'
    yield f'<text class="faint" x="{right}" y="{bottom + 18:.0f}" text-anchor="end">node {nodes}</text>'


def _peak(bars: Sequence[Moment], *, bottom: float, scale: float, width: float) -> Iterator[str]:
    """A line at the most that lives at once, and the name of the node that needs it."""
    if not bars:
        return
    number, bar = max(enumerate(bars), key=lambda each: each[1].live)
    at, x = bottom - bar.live * scale, _LEFT + (number + 0.5) * width
    late = x > (_LEFT + _WIDTH - _RIGHT) / 2
    anchor = ' text-anchor="end"' if late else ""
    yield f'<path class="peak" d="M{x:.1f} {bottom}V{at - 6:.1f}"/>'
    text = f"{_size(bar.live)}: {bar.operator} {bar.shape}"
    yield f'<text class="faint" x="{x + (-6 if late else 6):.1f}" y="{at - 4:.1f}"{anchor}>{escape(text)}</text>'


def _bars(moments: Sequence[Moment]) -> list[Moment]:
    """At most so many: of neighbours that share a bar, the one during which most lives."""
    if len(moments) <= _BARS:
        return list(moments)
    together = groupby(enumerate(moments), key=lambda each: each[0] * _BARS // len(moments))
    return [max((moment for _, moment in some), key=lambda each: each.live) for _, some in together]


def _hint(bar: Moment) -> str:
    return f"{bar.operator} {bar.node}: {_size(bar.live)} live, makes {_size(bar.makes)} {bar.shape}"


def _caption(told: Inspection) -> str:
    parts = [f"{told.nodes:,} nodes", f"{_size(told.weights_size)} of weights"]
    if told.activations is not None:
        parts.append(f"{_size(told.activations)} of activations at most")
    return ", ".join(parts)


def _legend(kinds: Sequence[str], *, y: int) -> Iterator[str]:
    apart = (_WIDTH - _LEFT - _RIGHT) / _LEGEND
    for number, kind in enumerate(kinds):
        x, line = _LEFT + number % _LEGEND * apart, y + number // _LEGEND * 20
        yield f'<rect class="k{_KINDS.index(kind)}" x="{x:.0f}" y="{line - 10}" width="12" height="12" rx="2"/>'
        yield f'<text class="faint" x="{x + 18:.0f}" y="{line}">{escape(kind)}</text>'


def _ticks(most: int) -> list[int]:
    """Four or five round numbers of bytes from nothing to at least `most`."""
    unit = next((factor for factor, _ in _UNITS if most >= factor), 1)
    step = unit
    for grown in (1, 2, 5, 10, 20, 50, 100, 200, 250, 500):
        step = grown * unit
        if step * 5 >= most:
            break
    return [number * step for number in range(-(-most // step) + 1)] if most else [0, 1]


def _size(number: int) -> str:
    for factor, unit in _UNITS:
        if number >= factor:
            shown = number / factor
            return f"{shown:.0f} {unit}" if shown >= 100 or shown == int(shown) else f"{shown:.1f} {unit}"
    return "0"


def _document(parts: Sequence[str], height: float) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
        f'aria-label="Memory over a run">\n<style>{_STYLE}</style>\n'
        f'<rect class="ground" width="{_WIDTH}" height="{height:.0f}" rx="8"/>\n{body}\n</svg>\n'
    )
