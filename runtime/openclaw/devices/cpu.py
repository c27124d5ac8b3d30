"""How many cores and how much memory the kernel really grants this process.

``os.cpu_count()`` counts the machine; a container gets a share of it. The share is the least of the
affinity mask and of the CPU quota of the process's control group and of each of its ancestors, and the
same holds for memory. Both versions of control groups are read: v2 ``cpu.max`` and ``memory.max``, v1
``cpu.cfs_quota_us`` and ``memory.limit_in_bytes`` (Linux: Documentation/admin-guide/cgroup-v2.rst and
cgroup-v1/). Parsing is pure; :func:`read_grant` alone touches files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# v1 writes "no limit" as the largest multiple of the page size below 2**63.
UNLIMITED_FROM = 1 << 60

# Linux: NR_CPUS of the largest configuration is 8192.
MOST_CPUS = 1 << 16


@dataclass(frozen=True)
class Grant:
    """What the process may use: ``cores`` (may be a fraction) and ``memory_bytes`` (None: no limit)."""

    cores: float
    memory_bytes: int | None


@dataclass(frozen=True)
class CgroupMount:
    """One mounted hierarchy: which part of it (``root``) is seen at ``point``; v2 has no controllers."""

    root: PurePosixPath
    point: PurePosixPath
    controllers: frozenset[str]
    version: int


def parse_mountinfo(text: str) -> list[CgroupMount]:
    """Reads the cgroup mounts out of ``/proc/self/mountinfo`` (proc(5)); other lines are passed over."""
    mounts = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        head, tail = before.split(), after.split()
        if not separator or len(head) < 5 or len(tail) < 3 or tail[0] not in ("cgroup", "cgroup2"):
            continue
        if not (head[3].startswith("/") and head[4].startswith("/")):
            continue
        version = 2 if tail[0] == "cgroup2" else 1
        controllers = frozenset(tail[2].split(",")) if version == 1 else frozenset()
        mounts.append(CgroupMount(PurePosixPath(head[3]), PurePosixPath(head[4]), controllers, version))
    return mounts


def parse_membership(text: str) -> dict[str, PurePosixPath]:
    """Reads ``/proc/self/cgroup``: controller -> group; the v2 group is under the empty name."""
    groups = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2].startswith("/"):
            for controller in parts[1].split(","):
                groups[controller] = PurePosixPath(parts[2])
    return groups


def group_folders(mount: CgroupMount, group: PurePosixPath) -> list[PurePosixPath]:
    """Folders of ``group`` and of its ancestors as far as ``mount`` shows them, innermost first.

    A group outside of what is mounted (a container without its own cgroup namespace) is looked for at
    the mount point, which is then the container's own group.
    """
    inside = group.relative_to(mount.root) if group.is_relative_to(mount.root) else PurePosixPath()
    if ".." in inside.parts:
        inside = PurePosixPath()
    folder = mount.point / inside
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(mount.point))]


def parse_cpu_max(text: str) -> float | None:
    """v2 ``cpu.max``, ``"QUOTA PERIOD"`` or ``"max PERIOD"``, in cores; None: no limit or unreadable."""
    quota, _, period = text.strip().partition(" ")
    return cores_of(quota, period or "100000")


def cores_of(quota: str, period: str) -> float | None:
    """Cores of a quota and a period in microseconds; None: no limit (``max``, -1) or unreadable."""
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return share if share > 0 else None


def parse_memory_limit(text: str) -> int | None:
    """``memory.max`` or ``memory.limit_in_bytes`` in bytes; None: no limit or unreadable."""
    try:
        limit = int(text.strip())
    except ValueError:
        return None
    return limit if 0 < limit < UNLIMITED_FROM else None


def default_threads(cores: float, workers: int = 1) -> int:
    """Threads for each of ``workers`` processes: whole cores shared between them, at least one."""
    return max(1, int(cores) // workers)


def count_cpus(text: str) -> int:
    """How many processors "0-3,8" names, the List format of cpuset(7); 0 if it is of another form."""
    last_counted, count = -1, 0
    for low, high in sorted(_range(part) for part in text.split(",")):
        if not 0 <= low <= high < MOST_CPUS:
            return 0
        count += max(0, high - max(low - 1, last_counted))
        last_counted = max(high, last_counted)
    return count


def _range(part: str) -> tuple[int, int]:
    first, _, last = part.strip().partition("-")
    try:
        return int(first), int(last or first)
    except ValueError:
        return -1, -1


def read_grant(root: Path = Path("/"), *, schedulable: int | None = None) -> Grant:
    """Reads what this process is granted; a file that is missing or unreadable sets no limit.

    Args:
        root: where the files are.
        schedulable: processors that it may run on; by default those of this process on this machine.
    """
    mounts = parse_mountinfo(_text(root / "proc/self/mountinfo"))
    groups = parse_membership(_text(root / "proc/self/cgroup"))
    cores = [float(schedulable or _schedulable_cores())]
    memory = []
    for mount in mounts:
        for folder in _folders_of(mount, groups):
            at = root / folder.relative_to("/")
            if mount.version == 2:
                share = parse_cpu_max(_text(at / "cpu.max"))
                limit = parse_memory_limit(_text(at / "memory.max"))
            else:
                share = cores_of(_text(at / "cpu.cfs_quota_us"), _text(at / "cpu.cfs_period_us"))
                limit = parse_memory_limit(_text(at / "memory.limit_in_bytes"))
            cores += [share] if share else []
            memory += [limit] if limit else []
    return Grant(cores=min(cores), memory_bytes=min(memory, default=None))


def _folders_of(mount: CgroupMount, groups: dict[str, PurePosixPath]) -> list[PurePosixPath]:
    wanted = {""} if mount.version == 2 else mount.controllers & {"cpu", "memory"}
    return [folder for name in sorted(wanted) if name in groups for folder in group_folders(mount, groups[name])]


def _schedulable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except (OSError, ValueError):  # a NUL in the path
        return ""
