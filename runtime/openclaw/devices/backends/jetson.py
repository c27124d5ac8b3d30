"""The GPU inside NVIDIA's Tegra chips (Jetson): no PCI device, and the machine's memory.

Sources: Jetson Linux Developer Guide; the driver's ``load`` counts thousandths, as ``tegrastats`` shows it.
"""

from __future__ import annotations

from openclaw.devices import routes
from openclaw.devices.device import Device
from openclaw.devices.memory import room_bytes, total_bytes
from openclaw.devices.tree import Folder, Machine

_GENERATIONS = {
    "nvidia,tegra264": "Thor",
    "nvidia,tegra234": "Orin",
    "nvidia,tegra194": "Xavier",
    "nvidia,tegra186": "TX2",
    "nvidia,tegra210": "Nano",
}

_LOADS = (
    "sys/devices/platform/gpu.0/load",
    "sys/devices/platform/bus@0/17000000.gpu/load",
    "sys/devices/platform/17000000.gpu/load",
    "sys/devices/platform/17000000.ga10b/load",
    "sys/devices/platform/17000000.gv11b/load",
    "sys/devices/gpu.0/load",
    "sys/devices/57000000.gpu/load",
)

_NODES = ("nvhost-gpu", "nvgpu/igpu0/ctrl", "nvidia0")


def is_tegra(machine: Machine) -> bool:
    """Whether the machine is one of these chips."""
    return any(word.startswith("nvidia,tegra") for word in _compatible(machine))


def find(machine: Machine) -> list[Device]:
    """The one GPU of the chip, or none elsewhere."""
    if not is_tegra(machine):
        return []
    folder = machine.folder("")
    generation = next((name for word, name in _GENERATIONS.items() if word in _compatible(machine)), "Tegra")
    model = (folder.words("proc/device-tree/model") or [f"Jetson {generation}"])[0]
    granted = any(folder.inside("dev").exists(node) for node in _NODES)
    return [
        Device(
            type="GPU",
            vendor="NVIDIA",
            name=f"{generation} GPU ({model[:80]})",
            memory=total_bytes(machine.root),
            memory_free=room_bytes(machine.root),
            load=_load(folder),
            integrated=True,
            driver="nvgpu",
            address="gpu.0",
            route=routes.JETSON,
            options=(("device_id", "0"),),
            hindrance=None if granted else f"this process is not granted it: there is no /dev/{_NODES[0]}",
            notes=tuple(folder.notes),
        )
    ]


def _compatible(machine: Machine) -> list[str]:
    return machine.folder("proc/device-tree").words("compatible")


def _load(folder: Folder) -> float | None:
    found = next((path for path in _LOADS if folder.exists(path)), None)
    thousandths = folder.number(found, most=1000) if found else None
    return None if thousandths is None else thousandths / 1000
