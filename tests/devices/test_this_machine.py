"""The machine that the tests run on, as it is, and in a control group."""

import asyncio
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from openclaw.devices.command import command
from openclaw.devices.cpu import count_cpus, parse_mountinfo
from openclaw.devices.instructions import parse_auxv, parse_cpuinfo, read_instructions
from openclaw.devices.inventory import read_devices
from support.recorded import NAMES, laid_out
from support.waiting import until

MIB = 1 << 20


def shown(*arguments: str) -> str:
    told = CliRunner().invoke(command, arguments)
    assert told.exit_code == 0, told.output
    return told.output


def test_the_cpu_of_this_machine_is_what_the_kernel_says() -> None:
    cpu = read_devices()[-1]
    assert cpu.type == "CPU"
    assert cpu.obstacle is None
    assert 0 < (cpu.cores or 0) <= (os.cpu_count() or 1)
    assert 0 < (cpu.memory or 0) <= psutil.virtual_memory().total
    assert 0 < (cpu.memory_free or 0) <= (cpu.memory or 0)
    assert 0 <= (cpu.load or 0) <= 1
    assert cpu.name
    expected = {"x86_64": "sse4_1", "aarch64": "neon"}.get(platform.machine())
    assert expected is None or expected in cpu.instructions


def test_instructions_are_those_that_the_kernel_tells_each_process_on_arm_and_lists_elsewhere() -> None:
    if platform.machine() == "aarch64":
        assert read_instructions() == parse_auxv(Path("/proc/self/auxv").read_bytes())
    else:
        assert read_instructions() == parse_cpuinfo(Path("/proc/cpuinfo").read_text())


def test_bits_of_the_auxiliary_vector_are_named_as_everywhere() -> None:
    vector = b"".join(n.to_bytes(8, "little") for n in (6, 4096, 16, 1 << 1 | 1 << 20 | 1 << 22, 26, 1 << 13, 0, 0))
    assert parse_auxv(vector) == {"neon", "dotprod", "sve", "i8mm"}
    assert parse_auxv(vector[:16]) is None
    assert parse_auxv(b"\1") is None


@pytest.mark.parametrize(
    ("text", "count"), [("0-3,8", 5), ("0", 1), ("0-3,2-5,5", 6), ("", 0), ("3-1", 0), ("0-99999999", 0), ("a", 0)]
)
def test_processors_are_counted_once_each(text: str, count: int) -> None:
    assert count_cpus(text) == count


def test_in_a_group_of_one_core_and_half_a_gibibyte_these_are_what_there_is() -> None:
    with group(cores=1, memory=512 * MIB) as enter:
        told: list[dict[str, Any]] = json.loads(
            subprocess.run(
                ["sh", "-c", f'{enter}; exec "$0" -m openclaw devices --json', sys.executable],
                capture_output=True, text=True, check=True, timeout=60,
            ).stdout
        )  # fmt: skip
    cpu = told[-1]
    assert (cpu["cores"], cpu["memory"]) == (1.0, 512 * MIB)
    assert 0 < cpu["memory_free"] < 512 * MIB


@contextmanager
def group(*, cores: float, memory: int) -> Iterator[str]:
    """A control group with limits; gives what a shell says to enter it, and removes it behind the last process."""
    name = f"openclaw-test-{os.getpid()}"
    limits = {
        "cpu.max": f"{int(cores * 100_000)} 100000",
        "memory.max": str(memory),
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": str(int(cores * 100_000)),
        "memory.limit_in_bytes": str(memory),
    }
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text())
    limiting = [mount for mount in mounts if mount.version == 2 or mount.controllers & {"cpu", "memory"}]
    folders = [Path(mount.point) / name for mount in limiting]
    made = [folder for folder in folders if _make(folder)]
    try:
        set_ = {limit for folder in made for limit, value in limits.items() if _write(folder / limit, value)}
        if not ({"cpu.max", "cpu.cfs_quota_us"} & set_ and {"memory.max", "memory.limit_in_bytes"} & set_):
            _cannot("no control group with limits can be made here")
        yield "; ".join(f"echo $$ > {folder}/cgroup.procs" for folder in made)
    finally:
        for folder in made:
            _remove(folder)


def _make(folder: Path) -> bool:
    try:
        folder.mkdir()
    except OSError:
        return False
    return True


def _write(path: Path, value: str) -> bool:
    try:
        path.write_text(value)
    except OSError:
        return False
    return True


def _remove(folder: Path) -> None:
    def gone() -> bool:
        try:
            folder.rmdir()
        except OSError:
            return not folder.exists()
        return True

    asyncio.run(until(gone))


def _cannot(why: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def test_the_table_has_a_line_for_each_device_and_says_what_to_install(tmp_path: Path) -> None:
    told = shown("--root", str(laid_out("amd-dgpu-apu", tmp_path))).splitlines()
    assert told[0].split() == ["ID", "TYPE", "VENDOR", "NAME", "MEMORY", "FREE", "LOAD", "RUNS", "ON"]
    assert told[1].split()[:3] == ["0", "GPU", "AMD"]
    assert "24.0 GiB  22.8 GiB    7%  -" in told[1]
    assert told[3].split()[-1] == "CPUExecutionProvider"
    assert told[4] == ""
    assert told[5].startswith("0: no execution provider for it is installed: pip uninstall onnxruntime, then pip")
    assert "2: 32 cores; avx, avx2, avx512_vnni" in "\n".join(told)


@pytest.mark.parametrize("name", NAMES)
def test_every_machine_on_record_can_be_told_as_a_table_and_as_json(name: str, tmp_path: Path) -> None:
    root = str(laid_out(name, tmp_path))
    devices = json.loads(shown("--json", "--root", root))
    assert [each["id"] for each in devices] == list(range(len(devices)))
    assert len(shown("--root", root).splitlines()) > len(devices)


def test_the_command_tells_of_this_machine() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "openclaw", "devices"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "CPUExecutionProvider" in told.stdout
    assert told.stderr == ""
