"""Hailo's accelerators: a class of their own once Hailo's driver has them, else what is on the PCI bus.

Source: hailo-ai/hailort-drivers, linux/pcie/src/sysfs.c and the table of PCI numbers.
"""

from __future__ import annotations

from openclaw.devices import routes
from openclaw.devices.device import Device
from openclaw.devices.pci import Function, functions
from openclaw.devices.tree import Machine

VENDOR = 0x1E60
_CLASS = "sys/class/hailo_chardev"
_MODELS = {0x2864: "Hailo-8", 0x43A2: "Hailo-15L", 0x45C4: "Hailo-10H"}


def find(machine: Machine) -> list[Device]:
    """By address on the bus."""
    boards = machine.folder(_CLASS)
    nodes = {boards.inside(name).text("board_location"): name for name in boards.names(r"hailo[0-9]+")}
    return [_device(machine, each, nodes.get(each.address)) for each in functions(machine, [VENDOR])]


def _device(machine: Machine, function: Function, node: str | None) -> Device:
    hindrance = None
    if node is None:
        hindrance = f"{function.holder}; install Hailo's driver (hailort-drivers)"
    elif not machine.folder("dev").exists(node):
        hindrance = f"this process is not granted it: there is no /dev/{node}"
    return Device(
        type="NPU",
        vendor="Hailo",
        name=_MODELS.get(function.device, f"Hailo {VENDOR:04x}:{function.device:04x}"),
        integrated=False,
        driver=function.driver,
        address=function.address,
        route=routes.HAILO,
        hindrance=hindrance,
        notes=tuple(function.folder.notes),
    )
