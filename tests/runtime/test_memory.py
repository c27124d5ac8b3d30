"""How much memory is left, by what the kernel says."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from openclaw.devices.memory import resident_bytes, room_bytes
from openclaw.errors import ModelNotFound, OutOfMemory
from openclaw.serving.loading import check_room

PAGE = os.sysconf("SC_PAGESIZE")


def machine(root: Path, *, limit: int, resident_pages: int, available_kib: int) -> Path:
    """A root with the files that the kernel would show."""
    files = {
        "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "proc/self/cgroup": "0::/\n",
        "proc/self/statm": f"9000 {resident_pages} 100 1 0 1 0\n",
        "proc/meminfo": f"MemTotal:       99999999 kB\nMemAvailable:   {available_kib} kB\n",
        "sys/fs/cgroup/memory.max": f"{limit}\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_memory_of_this_process_is_what_others_see_of_it() -> None:
    measured, seen = resident_bytes(), psutil.Process().memory_info().rss
    assert measured == pytest.approx(seen, rel=0.1)


def test_a_process_that_ended_has_none(tmp_path: Path) -> None:
    assert resident_bytes(12345, root=tmp_path) is None


def test_the_room_is_what_the_limit_leaves(tmp_path: Path) -> None:
    root = machine(tmp_path, limit=1000 * PAGE, resident_pages=400, available_kib=10**9)
    assert room_bytes(root) == 600 * PAGE


def test_the_room_is_never_more_than_the_machine_has(tmp_path: Path) -> None:
    root = machine(tmp_path, limit=1000 * PAGE, resident_pages=400, available_kib=4)
    assert room_bytes(root) == 4096


def test_without_a_limit_or_a_kernel_that_tells_the_room_is_unknown(tmp_path: Path) -> None:
    assert room_bytes(tmp_path) is None


def test_a_model_needs_twice_its_file_beside_those_that_are_served(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(bytes(1000))
    check_room(model, 2000)
    check_room(model, None)
    with pytest.raises(OutOfMemory, match=r"its file has 1,000 bytes, .* and 1,999 bytes are left; unload another"):
        check_room(model, 1999)


def test_a_model_whose_file_is_gone_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"there is no model at \S+model\.onnx: No such file"):
        check_room(tmp_path / "model.onnx", 2000)
