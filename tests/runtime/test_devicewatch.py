"""Devices that vanish while models are on them: on machines on record, whose files can be taken away."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from openclaw import DeviceManager
from openclaw.config import ModelConfig
from openclaw.devices.assigning import Assignment
from openclaw.devices.device import Device
from openclaw.execute.session import Model
from openclaw.serving.counters import SharedCounters
from openclaw.serving.devicewatch import watch_devices
from openclaw.serving.loading import Loaded
from openclaw.serving.repository import Repository
from openclaw.serving.telemetry import Telemetry
from support.recorded import laid_out, put
from support.waiting import until

ROCM = frozenset({"CPUExecutionProvider", "MIGraphXExecutionProvider"})
GPU = "sys/bus/pci/devices/0000:03:00.0"


def loaded(name: str, path: Path, device: Assignment | None) -> Loaded:
    """A model that is taken to be on a device; this machine has none of AMD's, so its session is on the CPU."""
    model = Model.from_file(path, name=name, threads=1)
    model.device = device
    return Loaded(ModelConfig(name=name, uri=path.as_uri()), model, seconds=0.1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with a GPU of AMD, and another in its processor."""
    return laid_out("amd-dgpu-apu", tmp_path / "machine")


@pytest.fixture
def manager(root: Path) -> DeviceManager:
    return DeviceManager(root, installed=ROCM)


@pytest.fixture
async def repository() -> AsyncIterator[Repository]:
    repository = Repository([], Telemetry(SharedCounters()), runs=1, patience=30)
    yield repository
    repository.drain()
    for served in repository.served():
        await served.retire()


async def test_a_server_whose_models_device_is_pulled_out_is_not_ready_and_says_why(
    repository: Repository, manager: DeviceManager, root: Path, *, models: Any, caplog: pytest.LogCaptureFixture
) -> None:
    repository.put(loaded("gone", models.digits(), manager.assign_task("inference", device_id=0)))
    repository.put(loaded("stays", models.digits(), manager.assign_task("inference", device_id=1)))
    repository.put(loaded("cpu", models.digits(), None))
    repository.open()
    assert repository.ready
    shutil.rmtree(root / GPU)
    await until(lambda: not repository.ready)
    assert [repository.is_ready(name) for name in ("gone", "stays", "cpu")] == [False, True, True]
    sentence = (
        "GPU 0 (AMD Radeon RX 7900 XT/7900 XTX/7900 GRE/7900M at 0000:03:00.0) was there when the task was assigned"
    )
    (line,) = (record.getMessage() for record in caplog.records if record.levelname == "ERROR")
    assert line.startswith(f"gone cannot answer any more, and the server is not ready: {sentence}, and is gone")
    assert {name: state for name, _, state, _ in repository.index()} == {
        "gone": "UNAVAILABLE", "stays": "READY", "cpu": "READY",
    }  # fmt: skip


async def test_a_device_that_was_not_named_is_missed_as_well_though_there_is_another(
    repository: Repository, manager: DeviceManager, root: Path, *, models: Any
) -> None:
    repository.put(loaded("digits", models.digits(), manager.assign_task("inference")))
    repository.open()
    shutil.rmtree(root / GPU)
    await until(lambda: not repository.ready)


async def test_a_device_whose_driver_is_taken_away_is_missed(
    repository: Repository, manager: DeviceManager, root: Path, *, models: Any
) -> None:
    repository.put(loaded("digits", models.digits(), manager.assign_task("inference", device_id=0)))
    repository.open()
    put(root, f"{GPU}/uevent", b"DRIVER=vfio-pci\n")
    await until(lambda: not repository.ready)
    ((_, _, _, reason),) = repository.index()
    assert "cannot be used any more: the driver vfio-pci has it" in reason


async def test_a_model_that_is_loaded_anew_makes_the_server_ready_again(
    repository: Repository, manager: DeviceManager, root: Path, *, models: Any
) -> None:
    repository.put(loaded("digits", models.digits(), manager.assign_task("inference")))
    repository.open()
    shutil.rmtree(root / GPU)
    await until(lambda: not repository.ready)
    repository.put(loaded("digits", models.digits(), manager.assign_task("inference")))
    assert repository.ready
    assert repository.is_ready("digits")
    assert [device.device.name for device in repository.devices().values()] == ["Raphael"]


class Told:
    """Models that take down what they are told."""

    def __init__(self, **devices: Assignment) -> None:
        self._devices = devices
        self.lost: dict[str, str] = {}

    def devices(self) -> dict[str, Assignment]:
        return self._devices

    def lose(self, name: str, why: str) -> None:
        self.lost[name] = why


class Flickering(DeviceManager):
    """Misses the first device in every second look."""

    looks = 0

    def list_devices(self) -> list[Device]:
        self.looks += 1
        return super().list_devices()[(self.looks + 1) % 2 :]


async def test_a_device_that_is_missed_in_one_look_alone_is_not_gone(root: Path) -> None:
    manager = Flickering(root, installed=ROCM)
    models = Told(digits=manager.assign_task("inference", device_id=0))
    watching = asyncio.create_task(watch_devices(models, every=0.001))
    await until(lambda: manager.looks > 8)
    assert models.lost == {}
    watching.cancel()


def test_a_server_on_the_cpu_looks_after_no_device(models: Any) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path; "
        "from openclaw.config import ModelConfig; from openclaw.execute.session import Model; "
        "from openclaw.serving.counters import SharedCounters; from openclaw.serving.loading import Loaded; "
        "from openclaw.serving.repository import Repository; from openclaw.serving.telemetry import Telemetry\n"
        "async def main(path):\n"
        "    repository = Repository([], Telemetry(SharedCounters()), runs=1, patience=30)\n"
        "    config = ModelConfig(name='digits', uri=path.as_uri())\n"
        "    repository.put(Loaded(config, Model.from_file(path, threads=1), seconds=0.1))\n"
        "    print(len(asyncio.all_tasks()), [name for name in sys.modules if 'devicewatch' in name])\n"
        "asyncio.run(main(Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(models.digits())], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split(maxsplit=1) == ["1", "[]\n"]
