"""What NVIDIA's management library says, asked through its real binding; the library itself is `nvml.c`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openclaw.devices.backends import nvml
from openclaw.devices.pci import normal_address

SOURCE = Path(__file__).with_name("nvml.c")
ASK = """
import json
from openclaw.devices.inventory import read_devices
installed = frozenset({"CPUExecutionProvider", "CUDAExecutionProvider"})
print(json.dumps([dict(each) for each in read_devices(installed=installed)]))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libnvidia-ml.so.1."""
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("nvml")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", SOURCE], check=True)
    return folder


def devices(library: Path, **environ: str) -> list[dict[str, Any]]:
    ended = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, "LD_LIBRARY_PATH": str(library), **environ},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    told: list[dict[str, Any]] = json.loads(ended.stdout)
    return [each for each in told if each["vendor"] == "NVIDIA"]


def test_each_gpu_tells_what_it_can(library: Path) -> None:
    first, second = devices(library)
    assert {name: first[name] for name in ("name", "address", "memory", "memory_free", "load", "options")} == {
        "name": "NVIDIA H200",
        "address": "0000:17:00.0",
        "memory": 150754820096,
        "memory_free": 150000000000,
        "load": 0.42,
        "options": {"device_id": "0"},
    }
    assert (second["name"], second["address"]) == ("NVIDIA GB10", "000f:01:00.0")
    assert (second["memory"], second["load"]) == (None, None)
    assert "compute capability 12.1" in second["notes"]
    assert {first["obstacle"], second["obstacle"]} == {None}


def test_a_gpu_can_be_hidden_by_its_uuid(library: Path) -> None:
    first, second = devices(library, CUDA_VISIBLE_DEVICES="GPU-00000000-0000-4000-8000-000000000001")
    assert "hidden from this process by CUDA_VISIBLE_DEVICES" in first["obstacle"]
    assert second["options"] == {"device_id": "0"}


def test_without_the_library_it_is_said_why_nothing_is_known() -> None:
    answer = nvml.ask()
    if answer.readings:
        pytest.skip("this machine has GPUs of NVIDIA")
    assert answer.why_not is not None
    assert answer.why_not.startswith("memory and load are unknown")


@pytest.mark.parametrize(
    ("told", "normal"),
    [
        ("00000000:17:00.0", "0000:17:00.0"),
        ("0000:AF:00.0", "0000:af:00.0"),
        ("00010000:01:00.0", "10000:01:00.0"),
        ("nonsense", "nonsense"),
    ],
)
def test_addresses_are_written_as_sysfs_does(told: str, normal: str) -> None:
    assert normal_address(told) == normal
