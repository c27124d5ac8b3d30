"""A process of the tests in a control group, whose children begin there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from openclaw.devices.cpu import parse_membership


@contextmanager
def inside(group: Path) -> Iterator[None]:
    """Has this process be in the group for as long: a child begins in its parent's.

    Args:
        group: of memory, directly in the folder where groups of its kind are mounted.
    """
    before = group.parent / _home()
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (before / "cgroup.procs").write_text(str(os.getpid()))


def _home() -> PurePosixPath:
    """The group of memory that this process is in, below where such groups are mounted."""
    groups = parse_membership(Path("/proc/self/cgroup").read_text())
    return (groups.get("memory") or groups[""]).relative_to("/")
