"""Buffers to plan, as hypothesis draws them."""

from __future__ import annotations

from hypothesis import strategies as st

from openclaw.graph.lifetimes import Buffer


def buffer(number: int, *, size: int, first: int, last: int) -> Buffer:
    return Buffer((f"t{number}",), size, first, last)


@st.composite
def some_buffers(draw: st.DrawFn, *, most: int = 24, steps: int = 30) -> list[Buffer]:
    """Any sizes, zero among them, and any lifetimes."""
    found = []
    for number in range(draw(st.integers(0, most))):
        first = draw(st.integers(0, steps))
        last = first + draw(st.integers(0, steps))
        found.append(buffer(number, size=draw(st.integers(0, 1000)), first=first, last=last))
    return found
