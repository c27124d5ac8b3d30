"""NPUs and accelerators of the kernel's compute accelerator subsystem: ``/sys/class/accel``.

Sources: Linux, Documentation/accel/introduction.rst; drivers/accel/{ivpu,amdxdna,habanalabs,qaic,rocket};
Documentation/ABI/testing/sysfs-driver-habanalabs.
"""

from __future__ import annotations

from dataclasses import dataclass

from openclaw.devices import routes
from openclaw.devices.device import Device, Route
from openclaw.devices.memory import room_bytes, total_bytes
from openclaw.devices.pci import product_name
from openclaw.devices.tree import Folder, Machine


@dataclass(frozen=True)
class _Family:
    """What a driver of the subsystem drives; ``named``: the file with its name, if it has one."""

    vendor: str
    name: str
    route: Route
    options: tuple[tuple[str, str], ...] = ()
    integrated: bool = True
    named: str | None = None


_FAMILIES = {
    "intel_vpu": _Family("Intel", "NPU", routes.OPENVINO_NPU, (("device_type", "NPU"),)),
    "amdxdna": _Family("AMD", "Ryzen AI NPU", routes.VITIS_AI, named="vbnv"),
    "habanalabs": _Family("Intel", "Gaudi", routes.GAUDI, integrated=False, named="device_type"),
    "qaic": _Family("Qualcomm", "Cloud AI 100", routes.AI_100, integrated=False),
    "rocket": _Family("Rockchip", "NPU", routes.ROCKCHIP),
}

# Behind rocket's node is a device that stands for all cores and has no driver itself (rocket_drv.c, rocket_register).
_FACADES = {"platform:rknn": "rocket"}


def find(machine: Machine) -> list[Device]:
    """Each node of the class; one of a driver that is not known here is shown, and can run nothing."""
    nodes = machine.folder("sys/class/accel")
    return [_device(machine, name, nodes.inside(f"{name}/device")) for name in nodes.names(r"accel[0-9]+")]


def _device(machine: Machine, node: str, folder: Folder) -> Device:
    driver = folder.driver or _FACADES.get(folder.fields("uevent").get("MODALIAS", ""))
    family = _FAMILIES.get(driver or "", _Family("unknown", f"accelerator {node}", routes.UNKNOWN))
    granted = machine.folder("dev").exists(f"accel/{node}")
    return Device(
        type="NPU",
        vendor=family.vendor,
        name=_name(machine, folder, family),
        memory=total_bytes(machine.root) if family.integrated else None,
        memory_free=room_bytes(machine.root) if family.integrated else None,
        integrated=family.integrated,
        driver=driver,
        address=_address(folder, node),
        route=family.route,
        options=family.options,
        hindrance=None if granted else f"this process is not granted it: there is no /dev/accel/{node}",
        notes=tuple(folder.notes),
    )


def _name(machine: Machine, folder: Folder, family: _Family) -> str:
    told = folder.text(family.named) if family.named else None
    numbers = [folder.number(name, most=0xFFFF) for name in ("vendor", "device") if folder.exists(name)]
    listed = product_name(machine, *(each or 0 for each in numbers)) if len(numbers) == 2 else None
    return (told or listed or family.name)[:120]


def _address(folder: Folder, node: str) -> str:
    """On the bus where it is on one: the number of the node changes when a device goes."""
    told = folder.fields("uevent")
    address = told.get("PCI_SLOT_NAME") or told.get("OF_FULLNAME") or node
    return address[:120]
