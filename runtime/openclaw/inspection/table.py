"""What a model is made of, as a table to read; of two side by side, with the change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from openclaw.inspection.anatomy import Inspection
from openclaw.inspection.operators import FUSED

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def tables(told: Sequence[Inspection]) -> list[Table | str]:
    """What the models take and give, the table, and what is to be said of them."""
    facts = Table(title=None, box=None, pad_edge=False, header_style="bold")
    for name in ("", *(each.name for each in told), *(["change"] if len(told) > 1 else [])):
        facts.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for title, cells in _rows(told):
        facts.add_row(title, *cells)
    remarks = [remark for each in told for remark in _remarks(each, named=len(told) > 1)]
    ports = [_ports(told[0])]
    return [*ports, facts, *dict.fromkeys(remarks)]


def _rows(told: Sequence[Inspection]) -> list[tuple[str, list[str]]]:
    """Titles and their cells, one for each model, and the change."""
    two = len(told) > 1
    rows = [("nodes", _counted([each.nodes for each in told]))]
    rows += [
        (f"  {name}", _counted([each.operators.get(name, 0) for each in told])) for name in _names(told, "operators")
    ]
    rows.append(("of them fused", _counted([sum(each.fusions.values()) for each in told])))
    rows.append(("size on disk", _measured([each.size for each in told])))
    rows.append(("parameters", _counted([each.parameters for each in told])))
    rows.append(("weights", _measured([each.weights_size for each in told])))
    for name in _names(told, "weights"):
        rows.append((f"  {name}", [_share(each.weights, name) for each in told] + [""] * two))
    rows.append(("multiply-accumulates", _counted([each.work_sum for each in told])))
    for name in _names(told, "work"):
        rows.append((f"  {name}", [_share(each.work or {}, name) for each in told] + [""] * two))
    rows.append(("activations, most at once", _measured([each.activations for each in told])))
    rows.append(("activations, all", _measured([each.activations_sum for each in told])))
    rows.append(("opset", [str(each.opsets.get("ai.onnx", "")) for each in told] + [""] * two))
    return rows


def _names(told: Sequence[Inspection], field: str) -> list[str]:
    """The keys of a field of both, the largest first."""
    sums: dict[str, int] = {}
    for each in told:
        for name, count in (getattr(each, field) or {}).items():
            sums[name] = max(sums.get(name, 0), count)
    return sorted(sums, key=lambda name: (-sums[name], name))


def _counted(numbers: Sequence[int | None]) -> list[str]:
    cells = ["unknown" if each is None else _large(each) if each >= 1_000_000 else f"{each:,}" for each in numbers]
    return [*cells, *_change(numbers)]


def _large(number: int) -> str:
    for factor, unit in ((10**12, "T"), (10**9, "G"), (10**6, "M")):
        if number >= factor:
            return f"{number / factor:,.2f} {unit}"
    return f"{number:,}"


def _measured(numbers: Sequence[int | None]) -> list[str]:
    return [*("unknown" if each is None else size(each) for each in numbers), *_change(numbers)]


def size(number: float) -> str:
    """Bytes, in the unit that leaves one to four digits."""
    unit = 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.0f} {_UNITS[unit]}" if unit == 0 else f"{number:.1f} {_UNITS[unit]}"


def _change(numbers: Sequence[int | None]) -> list[str]:
    if len(numbers) < 2:
        return []
    before, after = numbers[0], numbers[1]
    if before is None or after is None or before == after:
        return [""]
    if not before:
        return ["new"]
    change = after / before - 1
    return [f"{change:+.0%}" if abs(change) >= 0.01 else f"{change:+.2%}"]


def _share(of: Mapping[str, int], name: str) -> str:
    total = sum(of.values())
    return f"{of[name] / total:.1%}" if of.get(name) and total else ""


def _ports(told: Inspection) -> str:
    return f"takes {', '.join(told.inputs) or 'nothing'}\ngives {', '.join(told.outputs)}\n"


def _remarks(told: Inspection, *, named: bool) -> list[str]:
    about = f"{told.name}: " if named else ""
    remarks = []
    if told.assumed and told.activations is not None:
        sizes = ", ".join(f"{name} = {each}" for name, each in told.assumed.items())
        remarks.append(f"Work and activations are for {sizes}; --shape says otherwise.")
    if told.unknown:
        remarks.append(f"{about}{told.unknown} tensors have shapes that only a run can tell.")
    remarks += [f"{name} stands for: {FUSED[name]}." for name in told.fusions]
    return remarks
