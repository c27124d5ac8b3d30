"""What was held of activations, as an SVG that follows the reader's light or dark theme. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from benchmarks.graph.picture import document
from benchmarks.memory.records import Case, Results
from benchmarks.memory.settings import CHOSEN

from openclaw.memory.choice import DEFAULT

_WIDTH, _LEFT, _RIGHT, _TOP = 860, 250, 190, 64
_ROW, _BAR = 46, 15
_MIB = 1 << 20
_CLASSES = {DEFAULT: "fp32", CHOSEN: "kept"}


def arenas(results: Results) -> str:
    """A pair of bars for each model and batch, through what the default holds; a line where the plan's arena is."""
    cases = [case for case in results.cases.values() if {DEFAULT, CHOSEN} <= set(case.measured)]
    if not cases:
        return document(['<text x="24" y="40">No arena was measured.</text>'], 64, "Arenas")
    bottom = _TOP + _ROW * len(cases)
    parts = [
        '<text x="24" y="28">What was held of activations, through what the default holds</text>',
        f'<rect class="fp32" x="{_WIDTH - 330}" y="18" width="12" height="12"/>'
        f'<text class="faint" x="{_WIDTH - 312}" y="28">default</text>',
        f'<rect class="kept" x="{_WIDTH - 240}" y="18" width="12" height="12"/>'
        f'<text class="faint" x="{_WIDTH - 222}" y="28">chosen</text>',
        f'<path class="limit" d="M{_WIDTH - 150} 24h22"/>'
        f'<text class="faint" x="{_WIDTH - 122}" y="28">plan of the graph</text>',
    ]
    for fifth in range(6):
        at = _x(fifth / 5)
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP - 6}V{bottom}"/>')
        parts.append(f'<text class="faint" x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{fifth / 5:g}</text>')
    for number, case in enumerate(cases):
        parts += _pair(case, top=_TOP + number * _ROW)
    return document(parts, bottom + 40, "Arenas of onnxruntime")


def _x(share: float) -> float:
    return _LEFT + min(share, 1.15) * (_WIDTH - _LEFT - _RIGHT)


def _pair(case: Case, *, top: float) -> Iterator[str]:
    whole = max(case.measured[DEFAULT].arena.whole, 1)
    title = f"{case.title}, batch {case.batch}"
    yield f'<text x="{_LEFT - 10}" y="{top + 24}" text-anchor="end">{escape(title)}</text>'
    for place, name in enumerate((DEFAULT, CHOSEN)):
        held = case.measured[name].arena.whole
        y, end = top + 5 + place * (_BAR + 2), _x(held / whole)
        yield f'<rect class="{_CLASSES[name]}" x="{_LEFT}" y="{y}" width="{end - _LEFT:.1f}" height="{_BAR}" rx="2"/>'
        yield f'<text class="faint" x="{end + 8:.1f}" y="{y + 12}">{held / _MIB:.1f} MiB</text>'
    at = _x(case.plan.arena / whole)
    yield f'<path class="limit" d="M{at:.1f} {top + 2}v{2 * _BAR + 8}"/>'
