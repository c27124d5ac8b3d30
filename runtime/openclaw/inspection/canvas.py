"""What pictures of memory share: an SVG that follows the reader's light or dark theme, colours, a scale. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from openclaw.inspection.operators import ARITHMETIC, KINDS

WIDTH, LEFT, RIGHT = 960, 76, 20
ALL_KINDS = (*KINDS, ARITHMETIC)
_IN_A_ROW = 4  # kinds of the legend
_STYLE = """
  svg { color-scheme: light dark; font: 13px system-ui, sans-serif; }
  .ground { fill: #ffffff; } text { fill: #24292f; } .faint { fill: #57606a; font-size: 12px; }
  .grid { stroke: #d8dee4; stroke-width: 1; } .peak { stroke: #24292f; stroke-dasharray: 4 3; }
  .name { font-weight: 600; font-size: 15px; } .block { stroke: #ffffff; stroke-width: 0.6; }
  .bound { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 6 3; }
  .label { fill: #ffffff; font-size: 11px; paint-order: stroke; stroke: #24292f; stroke-width: 2px; }
  .k0 { fill: #0969da; } .k1 { fill: #8250df; } .k2 { fill: #bf3989; } .k3 { fill: #0598bc; } .k4 { fill: #1a7f37; }
  .k5 { fill: #bc4c00; } .k6 { fill: #4d8f8b; } .k7 { fill: #9a9fa6; } .k8 { fill: #c9cdd2; } .k9 { fill: #d4a72c; }
  .k10 { fill: #cf222e; } .k11 { fill: #7d6b58; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; } text { fill: #e6edf3; } .faint { fill: #9198a1; } .grid { stroke: #30363d; }
    .peak { stroke: #e6edf3; } .block { stroke: #0d1117; } .bound { stroke: #ff7b72; }
    .k0 { fill: #58a6ff; } .k1 { fill: #bc8cff; } .k2 { fill: #f778ba; } .k3 { fill: #39c5cf; } .k4 { fill: #3fb950; }
    .k5 { fill: #f0883e; } .k6 { fill: #76c7c0; } .k7 { fill: #8b949e; } .k8 { fill: #484f58; } .k9 { fill: #e3b341; }
    .k10 { fill: #ff7b72; } .k11 { fill: #b59e86; }
  }
"""
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


def colour(kind: str) -> str:
    """The class of what a node of this kind makes."""
    return f"k{ALL_KINDS.index(kind)}"


def legend(kinds: Sequence[str], *, y: int) -> Iterator[str]:
    """A field of each colour, and what it stands for, from `y` downwards."""
    apart = (WIDTH - LEFT - RIGHT) / _IN_A_ROW
    for number, kind in enumerate(kinds):
        x, line = LEFT + number % _IN_A_ROW * apart, y + number // _IN_A_ROW * 20
        yield f'<rect class="{colour(kind)}" x="{x:.0f}" y="{line - 10}" width="12" height="12" rx="2"/>'
        yield f'<text class="faint" x="{x + 18:.0f}" y="{line}">{escape(kind)}</text>'


def below_legend(kinds: Sequence[str], *, top: int) -> int:
    """Where what follows begins, which with one row of the legend is `top`."""
    return top + 20 * ((len(kinds) - 1) // _IN_A_ROW)


def ticks(most: int) -> list[int]:
    """Four or five round numbers of bytes from nothing to at least `most`."""
    unit = next((factor for factor, _ in _UNITS if most >= factor), 1)
    step = unit
    for grown in (1, 2, 5, 10, 20, 50, 100, 200, 250, 500):
        step = grown * unit
        if step * 5 >= most:
            break
    return [number * step for number in range(-(-most // step) + 1)] if most else [0, 1]


def grid(steps: Sequence[int], *, bottom: float, scale: float) -> Iterator[str]:
    """Lines at these numbers of bytes; `scale` is pixels of a byte."""
    for step in steps:
        at = bottom - step * scale
        yield f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text class="faint" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{short(step)}</text>'


def short(number: int) -> str:
    """Bytes in as few characters as are exact enough for a picture."""
    for factor, unit in _UNITS:
        if number >= factor:
            shown = number / factor
            return f"{shown:.0f} {unit}" if shown >= 100 or shown == int(shown) else f"{shown:.1f} {unit}"
    return "0"


def document(parts: Sequence[str], height: float, *, label: str) -> str:
    """The whole file."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(label)}">\n<style>{_STYLE}</style>\n'
        f'<rect class="ground" width="{WIDTH}" height="{height:.0f}" rx="8"/>\n{body}\n</svg>\n'
    )
