"""A process of the tests in a control group, whose children begin there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PARENTS = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@contextmanager
def inside(group: Path) -> Iterator[None]:
    """Has this process be in the group for as long: a child begins in its parent's."""
    before = _home()
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (before / "cgroup.procs").write_text(str(os.getpid()))


def _home() -> Path:
    """The group that this process is in."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        for parent in _PARENTS:
            if controllers in ("memory", "") and (parent / "cgroup.procs").exists():
                return parent / group.lstrip("/")
    raise AssertionError("no group")
