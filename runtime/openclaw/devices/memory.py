"""How much memory this process has, and how much more it may take. Linux: proc(5); elsewhere unknown."""

from __future__ import annotations

import os
from pathlib import Path

from openclaw.devices.cpu import read_grant


def resident_bytes(pid: int | str = "self", *, root: Path = Path("/")) -> int | None:
    """Memory that a process has in RAM, see proc_pid_statm(5); None where it cannot be told, or it has ended."""
    try:
        return int((root / f"proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, IndexError, ValueError):
        return None


def anonymous_bytes(root: Path = Path("/")) -> int:
    """Memory of this process that no file stands behind, so that the kernel cannot drop it; 0 where it is not told."""
    try:
        status = (root / "proc/self/status").read_text(encoding="ascii", errors="replace")
        value = next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:"))
        return int(value) * 1024 if value.isdigit() and len(value) < 16 else 0
    except (OSError, StopIteration, IndexError):
        return 0


def room_bytes(root: Path = Path("/")) -> int | None:
    """What is left of the limit of the process's control group, or of the machine; None where it cannot be told."""
    left = [room for room in (_left_of_grant(root), _meminfo(root, "MemAvailable")) if room is not None]
    return min(left, default=None)


def total_bytes(root: Path = Path("/")) -> int | None:
    """What this process may take at most: its control group's limit, or all of the machine; None: cannot be told."""
    told = [size for size in (_meminfo(root, "MemTotal"), read_grant(root).memory_bytes) if size is not None]
    return min(told, default=None)


def _left_of_grant(root: Path) -> int | None:
    limit, used = read_grant(root).memory_bytes, resident_bytes(root=root)
    return None if limit is None or used is None else max(0, limit - used)


def _meminfo(root: Path, name: str) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines()
        value = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
        # More digits would be more bytes than an address has.
        return int(value) * 1024 if value.isdigit() and len(value) < 16 else None
    except (OSError, StopIteration, IndexError, ValueError):
        return None
