"""What is shown while an optimization goes on."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

import pytest

from openclaw.optimizer.progress import watching


@contextmanager
def terminal(shown: list[str]) -> Iterator[TextIO]:
    """A terminal's side of a program, and in the end what the terminal got."""
    ours, its = os.openpty()
    try:
        with os.fdopen(its, "w") as stream:
            yield stream
        shown.append(b"".join(_read(ours)).decode())
    finally:
        os.close(ours)


def _read(terminal: int) -> Iterator[bytes]:
    """All that was written to a terminal whose other side is closed; a single read may give any part of it."""
    # EIO is its end, see pty(7).
    with suppress(OSError):
        while part := os.read(terminal, 1 << 16):
            yield part


def test_a_terminal_shows_what_goes_on_and_a_line_for_every_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    shown: list[str] = []
    with terminal(shown) as stream, watching(stream) as watcher:
        watcher.now("loading [the] model")
        watcher.expect(1)
        watcher.now("fp32-passes")
        watcher.finished("fp32-passes: refused: [0.9, 1.1] of the default's latency")
        watcher.expect(1)
        watcher.now("int8 [static]")
        watcher.finished("int8 [static]: kept")
        watcher.now("timing [the] best ones")
    (text,) = shown
    first, second = "fp32-passes: refused: [0.9, 1.1] of the default's latency", "int8 [static]: kept"
    assert 0 <= text.index(first) < text.index(second)
    assert "timing [the] best ones" in text


def test_anything_else_gets_a_line_for_every_candidate_and_nothing_more() -> None:
    stream = io.StringIO()
    with watching(stream) as watcher:
        watcher.now("loading the model")
        watcher.expect(2)
        watcher.finished("a: refused")
        watcher.expect(1)
        watcher.finished("b: kept")
    assert stream.getvalue() == "[1/2] a: refused\n[2/3] b: kept\n"
