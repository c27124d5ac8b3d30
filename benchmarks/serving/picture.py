"""Latency against load as an SVG that follows the reader's light or dark theme. Pure.

Both axes are logarithmic: what is compared lies factors apart. Colours and text sizes are of the file's own style
sheet, so that it looks the same wherever it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.serving.samples import Samples
from benchmarks.serving.subjects import OPENCLAW

_WIDTH, _HEIGHT = 820, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 220, 44, 52
_COLOURS = 8
_STYLE = """
  svg { color-scheme: light dark; font: 13px system-ui, sans-serif; }
  .ground { fill: #ffffff; } text { fill: #24292f; } .faint { fill: #57606a; font-size: 12px; }
  .grid { stroke: #d8dee4; stroke-width: 1; } .line { fill: none; stroke-width: 2; }
  .ours { stroke-width: 3.5; }
  .c0 { stroke: #0969da; } .c1 { stroke: #bc4c00; } .c2 { stroke: #1a7f37; }
  .c3 { stroke: #8250df; } .c4 { stroke: #bf3989; } .c5 { stroke: #9a6700; }
  .c6 { stroke: #0598bc; } .c7 { stroke: #57606a; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; } text { fill: #e6edf3; } .faint { fill: #9198a1; } .grid { stroke: #30363d; }
    .c0 { stroke: #58a6ff; } .c1 { stroke: #f0883e; } .c2 { stroke: #3fb950; }
    .c3 { stroke: #bc8cff; } .c4 { stroke: #f778ba; } .c5 { stroke: #d29922; }
    .c6 { stroke: #39c5cf; } .c7 { stroke: #9198a1; }
  }
"""


@dataclass(frozen=True, slots=True)
class _Axis:
    """A logarithmic scale of whole decades, from a range of values to a range of pixels."""

    decades: range
    pixels: tuple[float, float]

    @classmethod
    def over(cls, values: Sequence[float], pixels: tuple[float, float]) -> _Axis:
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return cls(range(low, max(high, low + 1) + 1), pixels)

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.decades[0]) / (self.decades[-1] - self.decades[0])
        return self.pixels[0] + share * (self.pixels[1] - self.pixels[0])


def latency_against_load(samples: Samples) -> str:
    """p99 (milliseconds) over the offered rate (requests a second): a line for each subject, medians of all rounds.

    Rates at which the client itself was late are left out.
    """
    curves = {str(each): points for each in samples.values("subject") if (points := _points(samples, str(each)))}
    if not curves:
        return _document(['<text x="24" y="80">No latency against load was measured.</text>'])
    every = [point for points in curves.values() for point in points]
    x = _Axis.over([point[0] for point in every], (_LEFT, _WIDTH - _RIGHT))
    y = _Axis.over([point[1] for point in every], (_HEIGHT - _BOTTOM, _TOP))
    # The one that this is about has its own colour, whoever else was measured.
    order = sorted(curves, key=lambda each: (each != OPENCLAW, each))
    lines = [_curve(curves[each], x=x, y=y, style=_colour(number), name=each) for number, each in enumerate(order)]
    return _document([*_grid(x, y), *lines, *_legend(curves, y, order)])


def _points(samples: Samples, subject: str) -> list[tuple[float, float]]:
    points = []
    for level in sorted(float(str(each)) for each in samples.where(subject=subject).values("level")):
        some = samples.where(subject=subject, level=level)
        p99 = some.spread("p99").median
        if all(each.trusted for each in some.all) and level > 0 and p99 > 0:
            points.append((level, p99 * 1e3))
    return points


def _grid(x: _Axis, y: _Axis) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for decade in x.decades:
        at = x.at(10.0**decade)
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom}"/>')
        parts.append(f'<text class="faint" x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{10**decade:,g}</text>')
    for decade in y.decades:
        at = y.at(10.0**decade)
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{right}"/>')
        label = f"{10.0**decade:g}"
        parts.append(f'<text class="faint" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 12}" text-anchor="middle">requests due a second</text>')
    parts.append(f'<text x="{_LEFT - 48}" y="{_TOP - 20}">p99, milliseconds, from when a request was due</text>')
    return parts


def _curve(points: Sequence[tuple[float, float]], *, x: _Axis, y: _Axis, style: str, name: str) -> str:
    places = [f"{x.at(rate):.1f} {y.at(latency):.1f}" for rate, latency in points]
    kind = f"line {style}" + (" ours" if name == OPENCLAW else "")
    dots = "".join(f"M{place}h0" for place in places)
    return (
        f'<g><title>{escape(name)}</title><path class="{kind}" d="M{"L".join(places)}"/>'
        f'<path class="{kind}" stroke-linecap="round" style="stroke-width:8" d="{dots}"/></g>'
    )


def _colour(number: int) -> str:
    """The class of the line with this number; those beyond the last colour share it."""
    return f"c{min(number, _COLOURS - 1)}"


def _legend(curves: dict[str, list[tuple[float, float]]], y: _Axis, order: Sequence[str]) -> list[str]:
    """Names at the right, in the order in which the curves end, no two on top of each other."""
    parts, above, left = [], _TOP - 12.0, _WIDTH - _RIGHT + 14
    for name in sorted(order, key=lambda each: y.at(curves[each][-1][1])):
        above += 22
        style = f"line {_colour(order.index(name))}" + (" ours" if name == OPENCLAW else "")
        parts.append(f'<path class="{style}" d="M{left} {above - 4}h16"/>')
        parts.append(f'<text x="{left + 22}" y="{above}">{escape(name)}</text>')
    return parts


def _document(parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Latency against load">\n<style>{_STYLE}</style>\n'
        f'<rect class="ground" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>\n{body}\n</svg>\n'
    )
