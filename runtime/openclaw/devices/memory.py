"""How much memory this process has, and how much more it may take. Linux: proc(5); elsewhere unknown."""

from __future__ import annotations

import os
from pathlib import Path

from openclaw.devices.cpu import read_grant


def resident_bytes(pid: int | str = "self", *, root: Path = Path("/")) -> int | None:
    """Memory that a process has in RAM, see proc_pid_statm(5); None where it cannot be told, or it has ended."""
    try:
        return int((root / f"proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return None


def room_bytes(root: Path = Path("/")) -> int | None:
    """What is left of the limit of the process's control group, or of the machine; None where it cannot be told."""
    left = [room for room in (_left_of_grant(root), _available(root)) if room is not None]
    return min(left, default=None)


def _left_of_grant(root: Path) -> int | None:
    limit, used = read_grant(root).memory_bytes, resident_bytes(root=root)
    return None if limit is None or used is None else max(0, limit - used)


def _available(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith("MemAvailable:")), None)
    return int(found[1]) * 1024 if found else None
