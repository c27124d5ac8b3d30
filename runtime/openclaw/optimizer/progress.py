"""What is going on, while it goes on: a line that moves on a terminal, plain lines anywhere else, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Watcher(Protocol):
    """Is told of the steps of an optimization."""

    def expect(self, steps: int) -> None:
        """So many more candidates will be tried."""

    def now(self, doing: str) -> None:
        """This began."""

    def finished(self, outcome: str) -> None:
        """One candidate is through."""


class Silent:
    """Tells nobody."""

    def expect(self, steps: int) -> None:
        """Nothing."""

    def now(self, doing: str) -> None:
        """Nothing."""

    def finished(self, outcome: str) -> None:
        """Nothing."""


class Lines:
    """Writes a line for every candidate."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._done, self._steps = stream, 0, 0

    def expect(self, steps: int) -> None:
        """Counts to so many more."""
        self._steps += steps

    def now(self, doing: str) -> None:
        """Nothing: a log needs no intermediate steps."""

    def finished(self, outcome: str) -> None:
        """Writes it."""
        self._done += 1
        self._stream.write(f"[{self._done}/{self._steps}] {outcome}\n")
        self._stream.flush()


class Bar:
    """A bar that moves, and above it a line for every candidate."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._steps = progress, 0
        self._task: TaskID = progress.add_task("reading the model", total=None)

    def expect(self, steps: int) -> None:
        """Makes the bar so much longer."""
        self._steps += steps
        self._progress.update(self._task, total=self._steps)

    def now(self, doing: str) -> None:
        """Shows it beside the bar."""
        self._progress.update(self._task, description=doing)

    def finished(self, outcome: str) -> None:
        """Writes it above, and moves the bar."""
        self._progress.console.print(outcome, markup=False, highlight=False)
        self._progress.advance(self._task)


@contextmanager
def watching(stream: TextIO | None = None) -> Iterator[Watcher]:
    """A bar if ``stream`` (by default stderr) is a terminal, else lines."""
    stream = stream or sys.stderr
    console = Console(file=stream)
    if not console.is_terminal:
        yield Lines(stream)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(20), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress)
