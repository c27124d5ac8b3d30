"""A control group of a node's own, below which kubelet puts its pods; versions 1 and 2."""

import os
import secrets
from pathlib import Path

from testcluster.waiting import until

_PREFIX = "openclaw-node-"
_MOUNT = Path("/sys/fs/cgroup")


def new_name() -> str:
    """A name for a group of this process."""
    return f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"


def create(name: str) -> None:
    """Make the group `name` in every hierarchy of this machine."""
    for root in _hierarchies():
        group = root / name
        group.mkdir(exist_ok=True)
        _allow_placement(root, group)


async def remove(name: str) -> None:
    """Remove the group `name` and all below it; waits for its last process to be gone."""

    async def gone() -> bool:
        left = [root for root in _hierarchies() if not _remove_tree(root / name)]
        return not left

    await until(gone, f"no process is left in control group {name}", timeout=30)


async def remove_abandoned() -> None:
    """Remove the groups of processes that were killed before they could do it."""
    for name in _abandoned():
        await remove(name)


def _abandoned() -> set[str]:
    groups = {group.name for root in _hierarchies() for group in root.glob(f"{_PREFIX}*")}
    return {name for name in groups if not Path("/proc", name.removeprefix(_PREFIX).partition("-")[0]).exists()}


def _hierarchies() -> list[Path]:
    if (_MOUNT / "cgroup.controllers").exists():
        return [_MOUNT]
    return [entry for entry in _MOUNT.iterdir() if entry.is_dir() and not entry.is_symlink()]


def _allow_placement(root: Path, group: Path) -> None:
    """A new cpuset (version 1) has no CPUs and takes no process; give it what its parent has."""
    for setting in ("cpuset.cpus", "cpuset.mems"):
        if (root / setting).exists() and (group / setting).exists():
            (group / setting).write_text((root / setting).read_text())


def _remove_tree(group: Path) -> bool:
    """Remove the groups from the leaves up; whether all are gone."""
    if not group.exists():
        return True
    try:
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()
    except OSError:
        return False  # a process is still there, or a group is being removed by another
    return True
