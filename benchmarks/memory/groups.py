"""A control group for each process that is measured, where this machine lets groups be made.

A process is in its group before its first instruction, so what the group counts is all of it. A group counts what the
kernel holds for a process: pages of files that it is the first to read, too, but not of those that the benchmark itself
wrote or read before. Without groups the process's own figures are told: proportional set size, and the most that was
resident.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_PARENTS = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")  # version 1, version 2
_LIMITS = ("memory.max", "memory.limit_in_bytes")  # here and below: version 2, version 1
_PEAKS = ("memory.peak", "memory.max_usage_in_bytes")
_EVENTS = ("memory.events", "memory.oom_control")
_REMOVAL = 10.0  # seconds: a group whose last process has just ended may be busy for a moment


def parent_group() -> Path | None:
    """A folder in which control groups of memory can be made; None: there is none on this machine, or for this user."""
    for parent in _PARENTS:
        folder = parent / _named("try")
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if any((folder / name).exists() for name in _LIMITS):
                return parent
        finally:
            folder.rmdir()
    return None


@contextmanager
def group(parent: Path | None, name: str, *, limit: int | None = None) -> Iterator[Path | None]:
    """A new group inside of `parent`, removed at the end; None without a parent.

    Args:
        parent: folder of the group that it is made in.
        name: to tell it from others of this process.
        limit: bytes that it may have; None: no limit of its own.

    Raises:
        OSError: it cannot be made, limited, or removed, as processes are still in it.
    """
    if parent is None:
        yield None
        return
    folder = parent / _named(name)
    folder.mkdir()
    try:
        if limit is not None:
            allow(folder, limit)
        yield folder
    finally:
        _remove(folder)


def allow(folder: Path, size: int) -> None:
    """Lets the group have so many bytes from now on. Raises OSError: it has more, and cannot give it back."""
    next(folder / name for name in _LIMITS if (folder / name).exists()).write_text(str(size))


def inside(command: Sequence[str], folder: Path | None) -> list[str]:
    """The command, run in the group from its first instruction; as it is without a group."""
    if folder is None:
        return list(command)
    return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(folder / "cgroup.procs"), *command]


def most(folder: Path | None) -> int | None:
    """The most bytes that the group ever had; None without a group, or where the kernel does not tell."""
    if folder is None:
        return None
    return next((int((folder / name).read_text()) for name in _PEAKS if (folder / name).exists()), None)


def kills(folder: Path | None) -> int | None:
    """How many of the group's processes the kernel ended for want of memory; None as of :func:`most`."""
    if folder is None:
        return None
    told = next((folder / name for name in _EVENTS if (folder / name).exists()), None)
    lines = [] if told is None else [line.split() for line in told.read_text().splitlines()]
    return next((int(words[1]) for words in lines if words[:1] == ["oom_kill"]), None)


def _named(name: str) -> str:
    return f"openclaw-bench-{os.getpid()}-{name}"


def _remove(folder: Path) -> None:
    tick, end = threading.Event(), time.monotonic() + _REMOVAL
    while True:
        try:
            folder.rmdir()
        except OSError:
            if time.monotonic() > end:
                raise
            tick.wait(0.02)
        else:
            return
