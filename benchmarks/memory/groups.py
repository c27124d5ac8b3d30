"""A control group for each process that is measured, where a folder is given in which groups may be made.

A group counts what the kernel holds for a process, the pages of files that it read among it. Without one the process's
own figures are told: proportional set size, and the most that was resident.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PEAKS = ("memory.peak", "memory.max_usage_in_bytes")  # version 2, version 1


@contextmanager
def group(parent: Path | None, name: str) -> Iterator[Path | None]:
    """A new group inside of `parent`, removed at the end; None without a parent."""
    if parent is None:
        yield None
        return
    folder = parent / name
    folder.mkdir()
    try:
        yield folder
    finally:
        folder.rmdir()


def join(folder: Path | None) -> None:
    """Puts this process into the group."""
    if folder is not None:
        (folder / "cgroup.procs").write_text(str(os.getpid()))


def most(folder: Path | None) -> int | None:
    """The most bytes that the group ever had; None without a group, or where the kernel does not tell."""
    if folder is None:
        return None
    return next((int((folder / name).read_text()) for name in _PEAKS if (folder / name).exists()), None)
