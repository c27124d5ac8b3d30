"""The plan of a model's memory as a table to read, and as JSON to compute with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from openclaw.inspection.memory import MemoryPlan, Place
from openclaw.inspection.table import size

_LARGEST = 10
_NAME = 40  # characters of a tensor's name that are shown


def tables(told: Sequence[MemoryPlan]) -> list[Table | str]:
    """The figures of the plans side by side, and then for each model its largest tensors."""
    shown: list[Table | str] = [_figures(told)]
    for each in told:
        title = f"\nThe largest tensors of {each.name}:" if len(told) > 1 else "\nThe largest tensors:"
        shown += [title, _largest(each)] if each.places else []
    assumed = {name: sizes for each in told for name, sizes in each.assumed.items()}
    if assumed:
        sizes = ", ".join(f"{name} = {each}" for name, each in assumed.items())
        shown.append(f"The plan is for {sizes}; --shape says otherwise.")
    return shown


def document(told: MemoryPlan) -> dict[str, Any]:
    """The plan as JSON has it; sizes and offsets are bytes, steps are numbers of nodes in the order of execution."""
    plan = told.plan
    return {
        "name": told.name,
        "lower_bound_bytes": plan.lower_bound_bytes,
        "arena_bytes": plan.arena_bytes,
        "fragmentation": plan.fragmentation,
        "total_bytes": plan.total_bytes,
        "reuse": plan.reuse,
        "alignment": plan.alignment,
        "method": plan.method,
        "rearranged": told.planned.rearranged,
        "assumed": dict(told.assumed),
        "nodes": [each.name for each in told.nodes],
        "tensors": [
            {
                "name": each.name,
                "bytes": each.bytes,
                "first": each.first,
                "last": each.last,
                "offset": each.offset,
                "shares": list(each.shares),
            }
            for each in told.places
        ],
    }


def _figures(told: Sequence[MemoryPlan]) -> Table:
    table = Table(title=None, box=None, pad_edge=False, header_style="bold")
    for name in ("", *(each.name for each in told)):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    plans = [each.plan for each in told]
    table.add_row("lower bound", *(size(each.lower_bound_bytes) for each in plans))
    table.add_row("arena", *(size(each.arena_bytes) for each in plans))
    table.add_row("fragmentation", *(f"{each.fragmentation:.2%}" for each in plans))
    table.add_row("without reuse", *(size(each.total_bytes) for each in plans))
    table.add_row("saved by reuse", *(f"{each.reuse:.1%}" for each in plans))
    table.add_row("tensors", *(f"{sum(len(each.names) for each in plan.buffers):,}" for plan in plans))
    table.add_row("buffers", *(f"{len(each.buffers):,}" for each in plans))
    table.add_row("order of nodes", *(_order(each) for each in told))
    return table


def _order(told: MemoryPlan) -> str:
    if not told.planned.rearranged:
        return "as in the file"
    return f"rearranged (file's: {size(told.planned.own_bound_bytes)})"


def _largest(told: MemoryPlan) -> Table:
    table = Table(title=None, box=None, pad_edge=False, header_style="bold")
    for name in ("tensor", "bytes", "from node", "to node", "offset"):
        table.add_column(name, justify="left" if name == "tensor" else "right", no_wrap=True)
    for each in sorted(told.places, key=lambda place: (-place.bytes, place.first))[:_LARGEST]:
        steps = (f"{each.first + 1:,}", f"{each.last + 1:,}")
        table.add_row(_named(each), size(each.bytes), *steps, f"{each.offset:,}")
    return table


def _named(place: Place) -> str:
    name = place.name if len(place.name) <= _NAME else f"{place.name[: _NAME - 3]}..."
    return f"{name} and {len(place.shares)} more" if place.shares else name
