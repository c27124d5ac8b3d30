"""Two pictures of what was measured, as SVG that follows the reader's light or dark theme. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.graph.figures import Ratio
from benchmarks.graph.records import FP32, INT8, Results, Tried
from benchmarks.graph.verdicts import of_case

_WIDTH, _LEFT, _RIGHT, _TOP = 860, 250, 150, 64
_ROW, _BAR = 46, 15
_STYLE = """
  svg { color-scheme: light dark; font: 13px system-ui, sans-serif; }
  .ground { fill: #ffffff; } text { fill: #24292f; } .faint { fill: #57606a; font-size: 12px; }
  .grid { stroke: #d8dee4; stroke-width: 1; } .default { stroke: #57606a; stroke-width: 1.5; }
  .spread { stroke: #24292f; stroke-width: 1.5; } .limit { stroke: #cf222e; stroke-dasharray: 4 3; }
  .fp32 { fill: #8c959f; } .int8 { fill: #0969da; } .kept { fill: #1a7f37; } .refused { fill: #bc4c00; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; } text { fill: #e6edf3; } .faint { fill: #9198a1; } .grid { stroke: #30363d; }
    .default { stroke: #9198a1; } .spread { stroke: #e6edf3; } .limit { stroke: #ff7b72; }
    .fp32 { fill: #6e7681; } .int8 { fill: #58a6ff; } .kept { fill: #3fb950; } .refused { fill: #f0883e; }
  }
"""
_LIMITS = {"cosine": 0.99}


def ratios(results: Results) -> str:
    """Latency of both forms through the default's, a pair of bars for each model and batch."""
    rows = [
        (f"{record.title}, batch {case.batch}", [(form, of_case(case, form)) for form in (FP32, INT8)])
        for record in results.families.values()
        for case in record.cases
    ]
    found = [each.high for _, pair in rows for _, each in pair if each]
    if not found:
        return document(['<text x="24" y="40">No latency was measured.</text>'], 64, "Latency")
    most = max(1.1, *found)
    bottom = _TOP + _ROW * len(rows)
    parts = [
        '<text x="24" y="28">Latency through that of onnxruntime’s default; shorter is faster</text>',
        f'<rect class="fp32" x="{_WIDTH - 300}" y="18" width="12" height="12"/>'
        f'<text class="faint" x="{_WIDTH - 282}" y="28">fp32, lossless</text>',
        f'<rect class="int8" x="{_WIDTH - 160}" y="18" width="12" height="12"/>'
        f'<text class="faint" x="{_WIDTH - 142}" y="28">lower precision</text>',
        *_scale(most, bottom),
    ]
    for number, (title, pair) in enumerate(rows):
        top = _TOP + number * _ROW
        parts.append(f'<text x="{_LEFT - 10}" y="{top + 24}" text-anchor="end">{escape(title)}</text>')
        for place, (form, each) in enumerate(pair):
            if each:
                parts += _bar(each, form=form, top=top + 5 + place * (_BAR + 2), most=most)
    return document(parts, bottom + 40, "Latency of optimized models")


def _x(value: float, most: float) -> float:
    return _LEFT + value / most * (_WIDTH - _LEFT - _RIGHT)


def _scale(most: float, bottom: float) -> Iterator[str]:
    for tenth in range(0, int(most * 10) + 1, 2):
        at = _x(tenth / 10, most)
        yield f'<path class="{"default" if tenth == 10 else "grid"}" d="M{at:.1f} {_TOP - 6}V{bottom}"/>'
        yield f'<text class="faint" x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{tenth / 10:g}</text>'


def _bar(each: Ratio, *, form: str, top: float, most: float) -> Iterator[str]:
    end, middle = _x(each.median, most), top + _BAR / 2
    yield f'<rect class="{form}" x="{_LEFT}" y="{top}" width="{end - _LEFT:.1f}" height="{_BAR}" rx="2"/>'
    yield f'<path class="spread" d="M{_x(each.low, most):.1f} {middle:.1f}H{_x(each.high, most):.1f}"/>'
    yield f'<text class="faint" x="{_x(each.high, most) + 6:.1f}" y="{middle + 4:.1f}">{escape(str(each))}</text>'


def frontier(results: Results) -> str:
    """Latency against cosine of everything that was tried on MiniLM and judged."""
    minilm = results.families.get("minilm")
    form = minilm.forms.get(INT8) if minilm else None
    points = [each for each in form.tried if each.ratio is not None and "cosine" in each.accuracy] if form else []
    if not points:
        return document(['<text x="24" y="40">No frontier was measured.</text>'], 64, "Frontier")
    return document([*_cloud(points)], 460, "Latency against cosine")


def _cloud(points: Sequence[Tried]) -> Iterator[str]:
    left, right, top, bottom = 70, _WIDTH - 210, 56, 410
    wide = max(1.0, *(each.ratio or 0 for each in points))
    low = min(*(each.accuracy["cosine"] for each in points), 0.98)

    def place(each: Tried) -> tuple[float, float]:
        x = left + (each.ratio or 0) / wide * (right - left)
        return x, top + (1 - each.accuracy["cosine"]) / (1 - low) * (bottom - top)

    yield '<text x="24" y="28">MiniLM: cosine to fp32 over latency through the default’s; up and left is better</text>'
    for step in range(6):
        x, value = left + step / 5 * (right - left), step / 5 * wide
        yield f'<path class="grid" d="M{x:.1f} {top}V{bottom}"/>'
        yield f'<text class="faint" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value:.2f}</text>'
        y, cosine = top + step / 5 * (bottom - top), 1 - step / 5 * (1 - low)
        yield f'<path class="grid" d="M{left} {y:.1f}H{right}"/>'
        yield f'<text class="faint" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{cosine:.3f}</text>'
    limit = top + (1 - _LIMITS["cosine"]) / (1 - low) * (bottom - top)
    yield f'<path class="limit" d="M{left} {limit:.1f}H{right}"/>'
    for each in points:
        x, y = place(each)
        told = f"{each.name}: {each.ratio:.3f}, cosine {each.accuracy['cosine']:.4f}; {each.outcome}"
        kind = "kept" if each.outcome == "kept" else "refused"
        yield f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{escape(told)}</title></circle>'
        yield f'<text class="faint" x="{x + 9:.1f}" y="{y + 4:.1f}">{escape(each.name)}</text>'


def document(parts: Sequence[str], height: float, label: str) -> str:
    """The whole file."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(label)}">\n<style>{_STYLE}</style>\n'
        f'<rect class="ground" width="{_WIDTH}" height="{height:.0f}" rx="8"/>\n{body}\n</svg>\n'
    )
