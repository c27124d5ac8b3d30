"""Disks that are small, so that they are full soon."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A folder, made now, that takes so many bytes, a multiple of the page size; skips where nobody may mount one."""
    folder.mkdir()
    mounted = _may_mount() and not _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    if not mounted:
        message = "only root can mount a small disk"
        if "CI" in os.environ and os.getuid() == 0 and shutil.which("mount"):
            pytest.fail(message)
        pytest.skip(message)
    try:
        yield folder
    finally:
        assert _run("umount", "-l", str(folder)) == 0


def enlarge(folder: Path, size: int) -> None:
    """Gives a small disk more room."""
    assert _run("mount", "-o", f"remount,size={size}", str(folder)) == 0


def _may_mount() -> bool:
    return os.getuid() == 0 and shutil.which("mount") is not None


def _run(*command: str) -> int:
    return subprocess.run(command, capture_output=True, check=False).returncode
